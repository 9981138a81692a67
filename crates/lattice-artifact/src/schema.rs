//! The schema of the graph: every type, attribute and operation, in the order that the digest is taken over.
//!
//! One table, and therefore one file.

use AttributeKind::{Float, Floats, Integer, Integers, Packing, Text, Word};
use ValueKind::{Sparse, Symbol, Tensor, Weight};

/// Version of the graph that is read and written.
pub const IR_VERSION: i64 = 2;

/// SHA-256 of the schema's JSON; a graph of another schema is refused.
pub const SCHEMA_DIGEST: &str = "1380f1e819fc0eb1af587202ecec3c14ec2c981d249333c5061f0263f82072ad";

/// Name of the file beside the graph that holds the weights.
pub const WEIGHT_FILE: &str = "weights.safetensors";

/// Name of the file that holds the graph.
pub const GRAPH_FILE: &str = "graph.mlir";

/// What an operand or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A dense tensor.
    Tensor,
    /// A sparse tensor.
    Sparse,
    /// A weight of the weight file.
    Weight,
    /// A name with `@`, which is no value.
    Symbol,
}

impl ValueKind {
    /// Name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Tensor => "tensor",
            Sparse => "sparse_tensor",
            Weight => "weight",
            Symbol => "symbol",
        }
    }
}

/// What an attribute of an operation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// A string in quotes.
    Text,
    /// An integer of 64 bits.
    Integer,
    /// A number of type f32.
    Float,
    /// Three integers.
    Integers,
    /// Three numbers of type f64.
    Floats,
    /// A word of the attribute with this mnemonic.
    Word(&'static str),
    /// How a weight is stored.
    Packing,
}

impl AttributeKind {
    /// Name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Text => "str",
            Integer => "i64",
            Float => "f32",
            Integers => "i64_triple",
            Floats => "f64_triple",
            Word(mnemonic) => mnemonic,
            Packing => "packing",
        }
    }

    /// How it is written, for messages.
    pub fn written(self) -> String {
        match self {
            Text => "a string in quotes".into(),
            Integer => "an integer".into(),
            Float => "a number with `: f32`".into(),
            Integers => "array<i64: ..> of three".into(),
            Floats => "array<f64: ..> of three".into(),
            Word(mnemonic) => format!("#lattice.{mnemonic}<..>"),
            Packing => "#lattice.packing<..>".into(),
        }
    }
}

/// How an operation is written after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assembly {
    /// `%a, %b {..} : (types) -> type`.
    Functional,
    /// `@name {..} : type`.
    Weight,
    /// `%a {..} : type -> (types)`.
    Decompose,
}

impl Assembly {
    /// Name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Functional => "functional",
            Self::Weight => "weight",
            Self::Decompose => "decompose",
        }
    }
}

/// One operand of an operation.
#[derive(Clone, Copy, Debug)]
pub struct OperandSchema {
    /// Name in the schema.
    pub name: &'static str,
    /// What it is.
    pub kind: ValueKind,
    /// Whether it may be left out; only last operands may.
    pub optional: bool,
}

/// One result of an operation.
#[derive(Clone, Copy, Debug)]
pub struct ResultSchema {
    /// Name in the schema.
    pub name: &'static str,
    /// What it is.
    pub kind: ValueKind,
}

/// One attribute of an operation. All are required.
#[derive(Clone, Copy, Debug)]
pub struct AttributeSchema {
    /// Name in the braces.
    pub name: &'static str,
    /// What it holds.
    pub kind: AttributeKind,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct OpSchema {
    /// Name after `lattice.`.
    pub name: &'static str,
    /// Name of the function that hosts call.
    pub host_name: &'static str,
    /// Operands, in order.
    pub operands: &'static [OperandSchema],
    /// Results, in order.
    pub results: &'static [ResultSchema],
    /// Attributes, in the order that is written.
    pub attributes: &'static [AttributeSchema],
    /// How it is written.
    pub assembly: Assembly,
}

/// A type of the dialect: its name, mnemonic and parameters.
#[derive(Clone, Copy, Debug)]
pub struct TypeSchema {
    /// Name.
    pub name: &'static str,
    /// Name after `!lattice.`.
    pub mnemonic: &'static str,
    /// Parameters and what they hold.
    pub parameters: &'static [(&'static str, &'static str)],
}

/// An attribute of the dialect: its name, mnemonic, words and parameters.
#[derive(Clone, Copy, Debug)]
pub struct WordSchema {
    /// Name.
    pub name: &'static str,
    /// Name after `#lattice.`.
    pub mnemonic: &'static str,
    /// Words that it may hold.
    pub values: &'static [&'static str],
    /// Parameters and what they hold.
    pub parameters: &'static [(&'static str, &'static str)],
}

/// All types.
pub static TYPES: [TypeSchema; 2] = [
    TypeSchema {
        name: "SparseTensor",
        mnemonic: "sparse_tensor",
        parameters: &[("rank", "unsigned"), ("coord", "string"), ("feature", "string"), ("dtype", "type")],
    },
    TypeSchema { name: "Weight", mnemonic: "weight", parameters: &[("family", "string"), ("dtype", "type")] },
];

const fn words(name: &'static str, mnemonic: &'static str, values: &'static [&'static str]) -> WordSchema {
    WordSchema { name, mnemonic, values, parameters: &[("value", "string")] }
}

/// All attributes of the dialect.
pub static WORDS: [WordSchema; 11] = [
    words("Coord", "coord", &["batch_x_y_z"]),
    words("FeatureLayout", "feature_layout", &["row_channel"]),
    words(
        "WeightLayout",
        "weight_layout",
        &["conv3d_o_xyz_i", "linear_o_i", "embedding_n_c", "channel_c", "bias_c"],
    ),
    WordSchema {
        name: "Packing",
        mnemonic: "packing",
        values: &["dense", "int4", "int8"],
        parameters: &[
            ("kind", "string"),
            ("group_size", "unsigned"),
            ("scale_dtype", "type"),
            ("mode", "string"),
        ],
    },
    words("Activation", "activation", &["relu", "sigmoid", "gelu", "silu", "leaky_relu", "tanh", "softplus"]),
    words("GeluApprox", "gelu_approx", &["none", "precise", "tanh", "fast"]),
    words("Join", "join", &["inner", "left", "right", "outer"]),
    words("BinaryOp", "binary_op", &["add", "sub", "mul", "maximum", "minimum"]),
    words("PoolMode", "pool_mode", &["sum", "max", "avg"]),
    words("VoxelReduction", "voxel_reduction", &["sum", "mean"]),
    words("PointInterpolation", "point_interpolation", &["nearest", "linear"]),
];

/// Words that the attribute with a mnemonic may hold.
pub fn words_of(mnemonic: &str) -> &'static [&'static str] {
    WORDS.iter().find(|w| w.mnemonic == mnemonic).map_or(&[], |w| w.values)
}

const fn arg(name: &'static str, kind: ValueKind) -> OperandSchema {
    OperandSchema { name, kind, optional: false }
}

const fn opt(name: &'static str, kind: ValueKind) -> OperandSchema {
    OperandSchema { name, kind, optional: true }
}

const fn sym(name: &'static str, kind: ValueKind) -> OperandSchema {
    arg(name, kind)
}

const fn res(name: &'static str, kind: ValueKind) -> ResultSchema {
    ResultSchema { name, kind }
}

const fn attr(name: &'static str, kind: AttributeKind) -> AttributeSchema {
    AttributeSchema { name, kind }
}

/// All operations, in the schema's order.
pub static OPS: [OpSchema; 31] = [
    OpSchema {
        name: "weight",
        host_name: "weight",
        operands: &[sym("sym_name", Symbol)],
        results: &[res("result", Weight)],
        attributes: &[
            attr("storage_key", Text),
            attr("layout", Word("weight_layout")),
            attr("packing", Packing),
        ],
        assembly: Assembly::Weight,
    },
    OpSchema {
        name: "sparse.make",
        host_name: "sparse_make",
        operands: &[arg("coords", Tensor), arg("features", Tensor), arg("active", Tensor)],
        results: &[res("result", Sparse)],
        attributes: &[attr("stride", Integers), attr("coord_order", Word("coord"))],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "sparse.decompose",
        host_name: "sparse_decompose",
        operands: &[arg("input", Sparse)],
        results: &[res("coords", Tensor), res("features", Tensor), res("active", Tensor)],
        attributes: &[],
        assembly: Assembly::Decompose,
    },
    OpSchema {
        name: "sparse.with_features",
        host_name: "sparse_with_features",
        operands: &[arg("input", Sparse), arg("features", Tensor)],
        results: &[res("result", Sparse)],
        attributes: &[],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "sparse.reindex",
        host_name: "sparse_reindex",
        operands: &[arg("input", Sparse), arg("target", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[attr("fill", Float)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "conv3d",
        host_name: "conv3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "subm_conv3d",
        host_name: "subm_conv3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[attr("kernel_size", Integers), attr("dilation", Integers), attr("accumulation", Text)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "normalized_subm_conv3d",
        host_name: "normalized_subm_conv3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("dilation", Integers),
            attr("eps", Float),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "target_conv3d",
        host_name: "target_conv3d",
        operands: &[arg("input", Sparse), arg("target", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "conv_transpose3d",
        host_name: "conv_transpose3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "target_conv_transpose3d",
        host_name: "target_conv_transpose3d",
        operands: &[arg("input", Sparse), arg("target", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "normalized_conv_transpose3d",
        host_name: "normalized_conv_transpose3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
            attr("eps", Float),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "target_normalized_conv_transpose3d",
        host_name: "target_normalized_conv_transpose3d",
        operands: &[arg("input", Sparse), arg("target", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
            attr("accumulation", Text),
            attr("eps", Float),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "generative_conv_transpose3d",
        host_name: "generative_conv_transpose3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[attr("kernel_size", Integers), attr("stride", Integers), attr("accumulation", Text)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "normalized_generative_conv_transpose3d",
        host_name: "normalized_generative_conv_transpose3d",
        operands: &[arg("input", Sparse), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("eps", Float),
            attr("accumulation", Text),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "pool3d",
        host_name: "pool3d",
        operands: &[arg("input", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("mode", Word("pool_mode")),
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "pool_transpose3d",
        host_name: "pool_transpose3d",
        operands: &[arg("input", Sparse), opt("target", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("kernel_size", Integers),
            attr("stride", Integers),
            attr("padding", Integers),
            attr("dilation", Integers),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "trilinear_upsample3d",
        host_name: "trilinear_upsample3d",
        operands: &[arg("input", Sparse), opt("target", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[attr("stride", Integers)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "global_pool",
        host_name: "global_pool",
        operands: &[arg("input", Sparse)],
        results: &[res("result", Tensor)],
        attributes: &[attr("mode", Word("pool_mode")), attr("batch_size", Integer)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "voxelize",
        host_name: "voxelize",
        operands: &[
            arg("points", Tensor),
            arg("features", Tensor),
            arg("batch_indices", Tensor),
            arg("active_rows", Tensor),
        ],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("voxel_size", Floats),
            attr("origin", Floats),
            attr("reduction", Word("voxel_reduction")),
            attr("stride", Integers),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "devoxelize",
        host_name: "devoxelize",
        operands: &[
            arg("points", Tensor),
            arg("voxels", Sparse),
            arg("batch_indices", Tensor),
            arg("point_active_rows", Tensor),
        ],
        results: &[res("result", Tensor)],
        attributes: &[
            attr("voxel_size", Floats),
            attr("origin", Floats),
            attr("interpolation", Word("point_interpolation")),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "linear",
        host_name: "linear",
        operands: &[arg("input", Tensor), arg("weight", Weight), opt("bias", Weight)],
        results: &[res("result", Tensor)],
        attributes: &[],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "embedding_lookup",
        host_name: "embedding_lookup",
        operands: &[arg("input", Tensor), arg("weight", Weight)],
        results: &[res("result", Tensor)],
        attributes: &[],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "elementwise",
        host_name: "elementwise",
        operands: &[arg("input", Tensor)],
        results: &[res("result", Tensor)],
        attributes: &[attr("kind", Text)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "softmax",
        host_name: "softmax",
        operands: &[arg("input", Tensor)],
        results: &[res("result", Tensor)],
        attributes: &[attr("axis", Integer)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "activation",
        host_name: "activation",
        operands: &[arg("input", Tensor)],
        results: &[res("result", Tensor)],
        attributes: &[
            attr("kind", Word("activation")),
            attr("approximate", Word("gelu_approx")),
            attr("alpha", Float),
            attr("beta", Float),
            attr("threshold", Float),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "batch_norm",
        host_name: "batch_norm",
        operands: &[
            arg("input", Tensor),
            arg("scale", Weight),
            arg("bias", Weight),
            arg("mean", Weight),
            arg("var", Weight),
        ],
        results: &[res("result", Tensor)],
        attributes: &[attr("eps", Float)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "layer_norm",
        host_name: "layer_norm",
        operands: &[arg("input", Tensor), arg("scale", Weight), arg("bias", Weight)],
        results: &[res("result", Tensor)],
        attributes: &[attr("eps", Float)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "rms_norm",
        host_name: "rms_norm",
        operands: &[arg("input", Tensor), arg("scale", Weight)],
        results: &[res("result", Tensor)],
        attributes: &[attr("eps", Float)],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "sparse.binary",
        host_name: "sparse_binary",
        operands: &[arg("lhs", Sparse), arg("rhs", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[
            attr("op", Word("binary_op")),
            attr("join", Word("join")),
            attr("lhs_fill", Float),
            attr("rhs_fill", Float),
        ],
        assembly: Assembly::Functional,
    },
    OpSchema {
        name: "sparse.cat",
        host_name: "sparse_cat",
        operands: &[arg("lhs", Sparse), arg("rhs", Sparse)],
        results: &[res("result", Sparse)],
        attributes: &[attr("join", Word("join"))],
        assembly: Assembly::Functional,
    },
];

impl OpSchema {
    /// The operation of a name, without `lattice.`.
    pub fn named(name: &str) -> Option<&'static Self> {
        OPS.iter().find(|op| op.name == name)
    }

    /// Operands that are values, without the symbol.
    pub fn values(&self) -> &'static [OperandSchema] {
        match self.assembly {
            Assembly::Weight => &self.operands[1..],
            _ => self.operands,
        }
    }

    /// Fewest values that it takes.
    pub fn fewest_values(&self) -> usize {
        self.values().iter().filter(|operand| !operand.optional).count()
    }
}
