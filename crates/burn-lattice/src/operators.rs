//! `+`, `-`, `*` and `&` of sparse tensors: the functional forms with their usual joins.
//!
//! Sums and differences join outer, products inner; `&` is the product. Every operator panics with the text of the
//! [`Error`](crate::Error) where operands do not fit; [`ops::sparse_binary`](crate::ops::sparse_binary) returns it.

use std::ops::{Add, BitAnd, Mul, Sub};

use crate::SparseTensor;
use crate::ops::{BinaryOp, sparse_binary};

fn apply(lhs: &SparseTensor, rhs: &SparseTensor, op: BinaryOp) -> SparseTensor {
    sparse_binary(lhs, rhs, op, op.default_join()).unwrap_or_else(|error| panic!("{error}"))
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr) => {
        impl $trait<&SparseTensor> for &SparseTensor {
            type Output = SparseTensor;

            fn $method(self, rhs: &SparseTensor) -> SparseTensor {
                apply(self, rhs, $op)
            }
        }

        impl $trait<SparseTensor> for &SparseTensor {
            type Output = SparseTensor;

            fn $method(self, rhs: SparseTensor) -> SparseTensor {
                apply(self, &rhs, $op)
            }
        }

        impl $trait<&SparseTensor> for SparseTensor {
            type Output = SparseTensor;

            fn $method(self, rhs: &SparseTensor) -> SparseTensor {
                apply(&self, rhs, $op)
            }
        }

        impl $trait<SparseTensor> for SparseTensor {
            type Output = SparseTensor;

            fn $method(self, rhs: SparseTensor) -> SparseTensor {
                apply(&self, &rhs, $op)
            }
        }
    };
}

operator!(Add, add, BinaryOp::Add);
operator!(Sub, sub, BinaryOp::Sub);
operator!(Mul, mul, BinaryOp::Mul);
operator!(BitAnd, bitand, BinaryOp::Mul);
