//! The canonical text: one operation a line, attributes in the schema's order, numbers in the shortest decimal that is exact.

use std::fmt::{self, Display, Formatter};

use crate::ir::{
    Attribute, Entry, Graph, Label, ModuleAttribute, Operation, PackingAttribute, SparseType, TensorType,
    Type, WeightType,
};

/// Items with commas between them.
struct Listed<'a, T>(&'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A string in quotes.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_ascii_control() => write!(f, "\\{:02X}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A word, in quotes where it would not be read bare.
struct Bare<'a>(&'a str);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '-');
        let starts = |c: char| c.is_ascii_digit() || c == '-';
        match !self.0.is_empty() && self.0.chars().all(name) && !self.0.starts_with(starts) {
            true => f.write_str(self.0),
            false => Quoted(self.0).fmt(f),
        }
    }
}

/// A number with a point, and zero without a sign.
struct Decimal<T>(T);

impl<T: Display + PartialEq + Default> Display for Decimal<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == T::default() {
            return f.write_str("0.0");
        }
        let text = self.0.to_string();
        write!(f, "{text}{}", if text.contains('.') { "" } else { ".0" })
    }
}

impl Display for TensorType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("tensor<")?;
        for dim in &self.dims {
            match dim {
                Some(size) => write!(f, "{size}x")?,
                None => f.write_str("?x")?,
            }
        }
        write!(f, "{}>", self.element)
    }
}

impl Display for SparseType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { rank, coord, feature, element } = self;
        let (coord, feature) = (Bare(coord), Bare(feature));
        write!(
            f,
            "!lattice.sparse_tensor<rank = {rank}, coord = {coord}, feature = {feature}, dtype = {element}>"
        )
    }
}

impl Display for WeightType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "!lattice.weight<{}, {}>", Bare(&self.family), self.element)
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(ty) => ty.fmt(f),
            Self::Sparse(ty) => ty.fmt(f),
            Self::Weight(ty) => ty.fmt(f),
        }
    }
}

impl Display for PackingAttribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => f.write_str("dense"),
            Self::Affine { kind, group_size, scale_dtype, mode } => {
                let (kind, mode) = (Bare(kind), Bare(mode));
                write!(f, "{kind}, group_size = {group_size}, scale_dtype = {scale_dtype}, mode = {mode}")
            }
        }
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{} : f32", Decimal(*value)),
            Self::Integers(values) => write!(f, "array<i64: {}>", Listed(values)),
            Self::Floats(values) => write!(f, "array<f64: {}>", Listed(&values.map(Decimal))),
            Self::Word { mnemonic, word } => write!(f, "#lattice.{}<{}>", Bare(mnemonic), Bare(word)),
            Self::Packing(packing) => write!(f, "#lattice.packing<{packing}>"),
        }
    }
}

impl Display for ModuleAttribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value} : i64"),
            Self::Typed(value, element) => write!(f, "{value} : {element}"),
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Texts(texts) => {
                let quoted: Vec<Quoted<'_>> = texts.iter().map(|text| Quoted(text)).collect();
                write!(f, "[{}]", Listed(&quoted))
            }
        }
    }
}

impl<T: Display> Display for Entry<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", Bare(&self.name), self.value)
    }
}

impl Display for Label {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.name)
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = lattice.{} ", Listed(&self.results), self.name)?;
        if let Some(symbol) = &self.symbol {
            let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '-');
            match !symbol.is_empty() && symbol.chars().all(bare) {
                true => write!(f, "@{symbol} ")?,
                false => write!(f, "@{} ", Quoted(symbol))?,
            }
        }
        if !self.operands.is_empty() {
            write!(f, "{} ", Listed(&self.operands))?;
        }
        if !self.attributes.is_empty() || self.symbol.is_some() {
            write!(f, "{{{}}} ", Listed(&self.attributes))?;
        }
        match (self.symbol.is_some(), self.name.as_str()) {
            (true, _) => write!(f, ": {}", Listed(&self.result_types)),
            (_, "sparse.decompose") => {
                write!(f, ": {} -> ({})", Listed(&self.operand_types), Listed(&self.result_types))
            }
            _ => write!(f, ": ({}) -> {}", Listed(&self.operand_types), Listed(&self.result_types)),
        }
    }
}

impl Display for Graph {
    /// The canonical text; [`parse`](crate::parse) of it gives this graph again.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module attributes {{")?;
        for (i, entry) in self.attributes.iter().enumerate() {
            writeln!(f, "    {entry}{}", if i + 1 < self.attributes.len() { "," } else { "" })?;
        }
        writeln!(f, "}} {{")?;
        f.write_str("    func.func @forward(")?;
        for (i, argument) in self.arguments.iter().enumerate() {
            write!(f, "{}{}: {}", if i > 0 { ", " } else { "" }, argument.label, argument.ty)?;
        }
        match self.results.as_slice() {
            [one] => writeln!(f, ") -> {one} {{")?,
            several => writeln!(f, ") -> ({}) {{", Listed(several))?,
        }
        for operation in &self.operations {
            writeln!(f, "        {operation}")?;
        }
        writeln!(f, "        return {} : {}", Listed(&self.returned), Listed(&self.returned_types))?;
        writeln!(f, "    }}\n}}")
    }
}
