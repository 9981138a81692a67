//! GPU backends: CubeCL tensors handed to `lattice-gpu` as buffers.

mod columns;
mod conv;
mod device;
mod forms;
mod kept;
mod kernels;
mod made;
mod maps;
mod packed;
mod points;
mod rows;

pub(crate) use columns::concat_columns;
pub(crate) use device::{
    check_relation, check_room, check_row_map, conv_work, device_class, device_name, gpu_device, is_software,
    n_pairs, peaks, prepare, takes_dtype,
};
pub(crate) use kept::{cast_bias, folded};
pub(crate) use made::{created_support, support_from_tensor, support_to_tensor};
pub(crate) use maps::{
    batch_counts, batch_map, cell_map, flat_map, joined, rows_inside, rows_named, rows_where, same_rows,
    top_rows,
};
pub(crate) use points::{find_neighbours, point_corners, quantize};
