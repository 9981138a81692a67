//! The graph as its text says it: nothing is checked here but the grammar.

use std::fmt;

/// Where something stands in a text. All places are equal, so that graphs compare by what they say.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    /// Line, from 1; 0 where there is no text.
    pub line: u32,
    /// Column in characters, from 1; 0 where there is no text.
    pub column: u32,
}

impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Element types and their names in text.
macro_rules! elements {
    ($($variant:ident $name:literal $bytes:literal $doc:literal)*) => {
        /// Element type of a tensor or weight.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Element {
            $(#[doc = $doc] $variant,)*
        }

        impl Element {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name in a graph.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bytes of one value; 0 for types that files do not store.
            pub fn bytes(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }
        }
    };
}

elements! {
    F64 "f64" 8 "64-bit float."
    F32 "f32" 4 "32-bit float."
    F16 "f16" 2 "16-bit float."
    Bf16 "bf16" 2 "16-bit float with 8 bits of exponent."
    I64 "i64" 8 "64-bit integer."
    I32 "i32" 4 "32-bit integer."
    I16 "i16" 2 "16-bit integer."
    I8 "i8" 1 "8-bit integer."
    I4 "i4" 0 "4-bit integer, of packed weights."
    I1 "i1" 0 "Truth value."
    U64 "ui64" 8 "64-bit integer without sign."
    U32 "ui32" 4 "32-bit integer without sign."
    U16 "ui16" 2 "16-bit integer without sign."
    U8 "ui8" 1 "8-bit integer without sign."
}

impl Element {
    /// The element type of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.name() == name)
    }

    /// Whether values of it are whole numbers.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether features may have it.
    pub fn is_feature(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `tensor<?x4xi32>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Dimensions; `None` is `?`.
    pub dims: Vec<Option<u64>>,
    /// Element type.
    pub element: Element,
}

/// `!lattice.sparse_tensor<..>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseType {
    /// Spatial axes.
    pub rank: i64,
    /// Order of coordinate columns.
    pub coord: String,
    /// Layout of features.
    pub feature: String,
    /// Element type of features.
    pub element: Element,
}

impl SparseType {
    /// Three axes, coordinates batch, x, y, z, and a row of channels a coordinate.
    pub fn new(element: Element) -> Self {
        Self { rank: 3, coord: "batch_x_y_z".into(), feature: "row_channel".into(), element }
    }
}

/// `!lattice.weight<family, dtype>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightType {
    /// What the weight is for, such as `conv3d`.
    pub family: String,
    /// Logical element type.
    pub element: Element,
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A dense tensor.
    Tensor(TensorType),
    /// A sparse tensor.
    Sparse(SparseType),
    /// A weight.
    Weight(WeightType),
}

impl Type {
    /// A dense tensor; `None` is a dimension that is not known.
    pub fn tensor(dims: &[Option<u64>], element: Element) -> Self {
        Self::Tensor(TensorType { dims: dims.to_vec(), element })
    }
}

/// How a weight is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackingAttribute {
    /// As floats.
    Dense,
    /// As codes with a scale and a bias a group.
    Affine {
        /// `int4` or `int8`.
        kind: String,
        /// Codes that share a scale.
        group_size: i64,
        /// Element type of scales and biases.
        scale_dtype: Element,
        /// `affine`.
        mode: String,
    },
}

/// Value of an operation's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// `"text"`.
    Text(String),
    /// `-1`.
    Integer(i64),
    /// `0.5 : f32`.
    Float(f32),
    /// `array<i64: 1, 2, 3>`.
    Integers([i64; 3]),
    /// `array<f64: 0.1, 0.1, 0.2>`.
    Floats([f64; 3]),
    /// `#lattice.mnemonic<word>`.
    Word {
        /// Which attribute of the dialect.
        mnemonic: String,
        /// Its word.
        word: String,
    },
    /// `#lattice.packing<..>`.
    Packing(PackingAttribute),
}

/// Value of a module's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleAttribute {
    /// An integer of type i64.
    Integer(i64),
    /// An integer of another type.
    Typed(i64, Element),
    /// A string.
    Text(String),
    /// Strings in brackets.
    Texts(Vec<String>),
}

/// A name with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    /// The name.
    pub name: String,
    /// The value.
    pub value: T,
    /// Where the name stands.
    pub at: At,
}

/// A value's label, where it is defined or used, without `%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The label.
    pub name: String,
    /// Where it stands.
    pub at: At,
}

/// An argument of the function.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// Its label.
    pub label: Label,
    /// Its type.
    pub ty: Type,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Name after `lattice.`; the schema has it.
    pub name: String,
    /// Labels of the results.
    pub results: Vec<Label>,
    /// The name with `@`, where the operation has one.
    pub symbol: Option<String>,
    /// Labels of the operands.
    pub operands: Vec<Label>,
    /// Attributes, in the schema's order, others after them by name.
    pub attributes: Vec<Entry<Attribute>>,
    /// Types of the operands as written.
    pub operand_types: Vec<Type>,
    /// Types of the results as written.
    pub result_types: Vec<Type>,
    /// Where its name stands.
    pub at: At,
}

/// A graph: a module with one function.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Attributes of the module, in the order of the format, others after them by name: those of other namespaces mean nothing here and are kept.
    pub attributes: Vec<Entry<ModuleAttribute>>,
    /// Arguments of the function.
    pub arguments: Vec<Argument>,
    /// Types that the function returns.
    pub results: Vec<Type>,
    /// Operations in order.
    pub operations: Vec<Operation>,
    /// What is returned.
    pub returned: Vec<Label>,
    /// Types of what is returned.
    pub returned_types: Vec<Type>,
    /// Where `return` stands.
    pub return_at: At,
}

/// Module attributes that every graph has, in order.
pub const MODULE_ATTRIBUTES: [&str; 7] = [
    "lattice.ir_version",
    "lattice.schema_digest",
    "lattice.input_names",
    "lattice.output_names",
    "lattice.input_roles",
    "lattice.output_roles",
    "lattice.weight_file",
];
