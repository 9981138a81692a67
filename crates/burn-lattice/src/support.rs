//! Handles of geometry: a support, a relation or a row map, wherever it is stored.
//!
//! The public types say nothing about where rows lie. What was made on a device stays there until the host asks for it, and what
//! lies on the host is copied when a device first needs it; either form lives as long as the handle (`lattice_core::Attachments`).

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use lattice_core as core;

use crate::routes::DeviceClass;
use crate::{KernelSpec, RelationKind, Result, backend};

/// An ordered set of distinct active coordinates `[batch, x, y, z]`, immutable and shared; clones share the identity.
#[derive(Clone, Debug)]
pub struct Support {
    host: core::Support,
}

impl Support {
    /// Takes distinct rows in the caller's order.
    ///
    /// # Errors
    /// [`DuplicateCoord`](crate::Error::DuplicateCoord), or [`OutOfRange`](crate::Error::OutOfRange) for a negative batch id.
    pub fn try_new(coords: Vec<[i32; 4]>) -> Result<Self> {
        Ok(Self { host: core::Support::try_new(coords)? })
    }

    /// Takes rows `[n, 4]` from an integer tensor, in their order. Rows of 32 bits on a GPU are checked and stay there.
    ///
    /// # Errors
    /// As [`Support::try_new`]; also a wrong shape, and values outside i32.
    pub fn from_tensor(coords: Tensor<2, Int>) -> Result<Self> {
        let [rows, columns] = coords.dims();
        if columns != 4 {
            return Err(crate::Error::Shape {
                op: "Support::from_tensor",
                expected: "shape [n, 4] with columns batch, x, y, z".into(),
                found: format!("[{rows}, {columns}]"),
            });
        }
        if let Some(host) = backend::support_from_tensor(&coords) {
            return Ok(Self { host });
        }
        let values: Vec<i64> = coords.into_data().iter::<i64>().collect();
        let wide: Vec<[i64; 4]> = values.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect();
        Self::try_new(core::check_coords_i64(&wide)?)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.host.n_rows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.n_rows() == 0
    }

    /// Identity: equal for clones, different for supports made apart, even of equal rows.
    pub fn id(&self) -> core::SupportId {
        self.host.id()
    }

    /// Whether both are one support (not merely equal in value).
    pub fn same_identity(&self, other: &Self) -> bool {
        self.host.same_identity(&other.host)
    }

    /// Whether rows are equal in value and order; costs a pass over the rows unless the identity is shared.
    pub fn same_rows(&self, other: &Self) -> bool {
        self.host.same_rows(&other.host)
    }

    /// The rows in host memory.
    pub fn to_host(&self) -> &core::Support {
        &self.host
    }

    /// The rows as an integer tensor `[n, 4]` on a device.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2, Int> {
        if let Some(rows) = backend::support_to_tensor(device, &self.host) {
            return rows;
        }
        let rows = self.host.coords();
        let flat: Vec<i32> = rows.iter().flatten().copied().collect();
        Tensor::from_data(TensorData::new(flat, [rows.len(), 4]), device)
    }
}

impl From<core::Support> for Support {
    fn from(host: core::Support) -> Self {
        Self { host }
    }
}

/// Which input row meets which output row under which tap; see [`lattice_core::Relation`].
#[derive(Clone, Debug)]
pub struct Relation {
    host: core::Relation,
}

impl Relation {
    /// Kind of the relation.
    pub fn kind(&self) -> RelationKind {
        self.host.kind()
    }

    /// Kernel it was built for.
    pub fn spec(&self) -> &KernelSpec {
        self.host.spec()
    }

    /// Rows of the source support.
    pub fn n_in(&self) -> usize {
        self.host.n_in()
    }

    /// Rows of the target support.
    pub fn n_out(&self) -> usize {
        self.host.n_out()
    }

    /// Kernel taps.
    pub fn taps(&self) -> usize {
        self.host.taps()
    }

    /// Pairs over all taps. Lists them on the host, unless a device counted them.
    pub fn n_pairs(&self) -> usize {
        self.host.n_pairs()
    }

    /// Pairs over all taps, counted where the relation's device form lies.
    pub fn n_pairs_on(&self, device: &Device) -> usize {
        backend::n_pairs(device, &self.host)
    }

    /// The support that outputs stand on.
    pub fn target(&self) -> Support {
        self.host.target().clone().into()
    }

    /// The support that inputs stand on.
    pub fn source(&self) -> Support {
        self.host.source().clone().into()
    }

    /// Builds now what convolutions on a device read of this relation, with gradients in training; otherwise their first call does.
    ///
    /// # Errors
    /// On a GPU [`Error::Limit`](crate::Error::Limit) for a relation that it cannot hold.
    pub fn prepare(&self, device: &Device, training: bool) -> Result<()> {
        match DeviceClass::of(device) {
            DeviceClass::Cpu => {
                self.host.tap_tiles();
                if training {
                    self.host.transpose().tap_tiles();
                }
            }
            DeviceClass::Gpu(_) => {
                backend::check_relation("Relation::prepare", device, &self.host)?;
                backend::prepare(device, &self.host, training);
            }
        }
        Ok(())
    }

    /// The relation in host memory.
    pub fn to_host(&self) -> &core::Relation {
        &self.host
    }
}

impl From<core::Relation> for Relation {
    fn from(host: core::Relation) -> Self {
        Self { host }
    }
}

/// A sparse linear mixing of rows: `out[o] = Σ weight[e] · x[row[e]]`; see [`lattice_core::RowMap`].
#[derive(Clone, Debug)]
pub struct RowMap {
    host: core::RowMap,
}

impl RowMap {
    /// Rows it reads from.
    pub fn n_in(&self) -> usize {
        self.host.n_in()
    }

    /// Rows it makes.
    pub fn n_out(&self) -> usize {
        self.host.n_out()
    }

    /// The map in host memory.
    pub fn to_host(&self) -> &core::RowMap {
        &self.host
    }

    /// The adjoint map, built once.
    pub fn transpose(&self) -> Self {
        self.host.transpose().into()
    }
}

impl From<core::RowMap> for RowMap {
    fn from(host: core::RowMap) -> Self {
        Self { host }
    }
}

/// Rows per batch item, shared.
pub(crate) type BatchCounts = Option<Arc<[usize]>>;
