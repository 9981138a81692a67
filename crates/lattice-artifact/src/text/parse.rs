//! The grammar: a module with one function, one operation after another. Nothing here recurses, so no text is nested too deeply.

use super::cursor::{Cursor, Parsed, shortened};
use crate::ir::{
    Argument, At, Attribute, Element, Entry, Graph, Label, MODULE_ATTRIBUTES, ModuleAttribute, Operation,
    PackingAttribute, SparseType, TensorType, Type, WeightType,
};
use crate::schema::{Assembly, OPS, OpSchema};

/// Most axes of a tensor.
const MOST_AXES: usize = 16;
/// Most attributes of one operation or module.
const MOST_ATTRIBUTES: usize = 64;
/// Most names in one list: arguments, results, operands.
const MOST_NAMES: usize = 65_536;
/// Longest text.
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// Reads a graph. Only the grammar is checked; see [`verify`](crate::verify).
///
/// # Errors
/// [`ArtifactError::Syntax`](crate::ArtifactError::Syntax) with line, column, what was expected and what was found.
pub fn parse(text: &str) -> Parsed<Graph> {
    let mut reader = Reader { cursor: Cursor::new(text) };
    if text.len() > MOST_BYTES {
        return reader
            .cursor
            .refuse(format!("expected a text of at most {MOST_BYTES} bytes, found {}", text.len()));
    }
    reader.module()
}

struct Reader<'a> {
    cursor: Cursor<'a>,
}

impl Reader<'_> {
    fn module(&mut self) -> Parsed<Graph> {
        if self.cursor.sees("{") || self.cursor.sees("[") {
            return self.cursor.expected("`module`, since manifests in JSON are not read");
        }
        self.cursor.keyword("module")?;
        self.cursor.keyword("attributes")?;
        self.cursor.expect("{")?;
        let mut attributes: Vec<Entry<ModuleAttribute>> = Vec::new();
        loop {
            let at = self.cursor.at();
            let name = self.cursor.word("the name of a module attribute")?;
            self.unique(&attributes, &name, at)?;
            self.cursor.expect("=")?;
            let value = self.module_attribute()?;
            attributes.push(Entry { name, value, at });
            if !self.cursor.takes(",") {
                break;
            }
        }
        self.cursor.expect("}")?;
        let place = |name: &str| MODULE_ATTRIBUTES.iter().position(|known| *known == name);
        attributes
            .sort_by_key(|entry| (place(&entry.name).unwrap_or(MODULE_ATTRIBUTES.len()), entry.name.clone()));

        self.cursor.expect("{")?;
        let graph = self.function(attributes)?;
        if self.cursor.sees("func.func") {
            return self.cursor.expected("one function, @forward, and `}` after it");
        }
        self.cursor.expect("}")?;
        match self.cursor.is_at_end() {
            true => Ok(graph),
            false => self.cursor.expected("the end of the text after the module"),
        }
    }

    fn unique<T>(&mut self, entries: &[Entry<T>], name: &str, at: At) -> Parsed<()> {
        if entries.iter().any(|entry| entry.name == name) {
            return Cursor::refuse_at(
                at,
                format!("expected each attribute once, found {} twice", shortened(name)),
            );
        }
        if entries.len() == MOST_ATTRIBUTES {
            return Cursor::refuse_at(
                at,
                format!("expected at most {MOST_ATTRIBUTES} attributes, found more"),
            );
        }
        Ok(())
    }

    fn module_attribute(&mut self) -> Parsed<ModuleAttribute> {
        if self.cursor.sees("\"") {
            return self.cursor.string().map(ModuleAttribute::Text);
        }
        if self.cursor.takes("[") {
            let mut texts = Vec::new();
            let mut more = !self.cursor.sees("]");
            while more {
                texts.push(self.cursor.string()?);
                self.bounded(texts.len())?;
                more = self.cursor.takes(",");
            }
            self.cursor.expect("]")?;
            return Ok(ModuleAttribute::Texts(texts));
        }
        let value = self.cursor.integer()?;
        let at = self.cursor.at();
        match if self.cursor.takes(":") { self.element()? } else { Element::I64 } {
            Element::I64 => Ok(ModuleAttribute::Integer(value)),
            other if other.is_integer() => Ok(ModuleAttribute::Typed(value, other)),
            other => Cursor::refuse_at(at, format!("expected an integer's type, found `{other}`")),
        }
    }

    fn bounded(&mut self, length: usize) -> Parsed<()> {
        match length > MOST_NAMES {
            true => {
                self.cursor.refuse(format!("expected at most {MOST_NAMES} entries in a list, found more"))
            }
            false => Ok(()),
        }
    }

    fn function(&mut self, attributes: Vec<Entry<ModuleAttribute>>) -> Parsed<Graph> {
        self.cursor.keyword("func.func")?;
        let at = self.cursor.at();
        let name = self.cursor.label("@", "the function's name, `@forward`")?;
        if name != "forward" {
            return Cursor::refuse_at(
                at,
                format!("expected the function `@forward`, found {}", shortened(&name)),
            );
        }
        self.cursor.expect("(")?;
        let mut arguments = Vec::new();
        let mut more = !self.cursor.sees(")");
        while more {
            let label = self.value("an argument, `%name`")?;
            self.cursor.expect(":")?;
            arguments.push(Argument { label, ty: self.ty()? });
            self.bounded(arguments.len())?;
            more = self.cursor.takes(",");
        }
        self.cursor.expect(")")?;
        self.cursor.expect("->")?;
        let results = match self.cursor.takes("(") {
            true => {
                let types = self.types()?;
                self.cursor.expect(")")?;
                types
            }
            false => vec![self.ty()?],
        };
        self.cursor.expect("{")?;
        let mut operations = Vec::new();
        while self.cursor.sees("%") {
            operations.push(self.operation()?);
        }
        let return_at = self.cursor.at();
        match self.cursor.peek_name() {
            "return" => self.cursor.keyword("return")?,
            "func.return" => self.cursor.keyword("func.return")?,
            _ => return self.cursor.expected("an operation, `%name = lattice...`, or `return`"),
        }
        let returned = self.values()?;
        self.cursor.expect(":")?;
        let returned_types = self.types()?;
        self.cursor.expect("}")?;
        Ok(Graph { attributes, arguments, results, operations, returned, returned_types, return_at })
    }

    fn value(&mut self, what: &str) -> Parsed<Label> {
        let at = self.cursor.at();
        Ok(Label { name: self.cursor.label("%", what)?, at })
    }

    fn values(&mut self) -> Parsed<Vec<Label>> {
        let mut values = Vec::new();
        loop {
            values.push(self.value("a value, `%name`")?);
            self.bounded(values.len())?;
            if !self.cursor.takes(",") {
                return Ok(values);
            }
        }
    }

    fn types(&mut self) -> Parsed<Vec<Type>> {
        let mut types = Vec::new();
        loop {
            types.push(self.ty()?);
            self.bounded(types.len())?;
            if !self.cursor.takes(",") {
                return Ok(types);
            }
        }
    }

    fn operation(&mut self) -> Parsed<Operation> {
        let results = self.values()?;
        self.cursor.expect("=")?;
        let at = self.cursor.at();
        let full = self.cursor.peek_name();
        let Some(schema) = full.strip_prefix("lattice.").and_then(OpSchema::named) else {
            if !full.starts_with("lattice.") {
                return self.cursor.expected("an operation `lattice...`");
            }
            let known: Vec<&str> = OPS.iter().map(|op| op.name).collect();
            return self.cursor.expected(&format!("one of the operations lattice.{{{}}}", known.join(", ")));
        };
        self.cursor.keyword(full)?;
        let mut operation = Operation {
            name: schema.name.into(),
            results,
            symbol: None,
            operands: Vec::new(),
            attributes: Vec::new(),
            operand_types: Vec::new(),
            result_types: Vec::new(),
            at,
        };
        match schema.assembly {
            Assembly::Weight => {
                operation.symbol = Some(self.cursor.label("@", "the weight's name, `@name`")?);
                if !self.cursor.sees("{") {
                    return self.cursor.expected("`{` and the attributes of the weight");
                }
                operation.attributes = self.attributes(schema)?;
                self.cursor.expect(":")?;
                operation.result_types = vec![self.ty()?];
            }
            Assembly::Functional => {
                operation.operands = self.values()?;
                operation.attributes = self.attributes(schema)?;
                self.cursor.expect(":")?;
                self.cursor.expect("(")?;
                if !self.cursor.sees(")") {
                    operation.operand_types = self.types()?;
                }
                self.cursor.expect(")")?;
                self.cursor.expect("->")?;
                operation.result_types = vec![self.ty()?];
            }
            Assembly::Decompose => {
                operation.operands = vec![self.value("a value, `%name`")?];
                operation.attributes = self.attributes(schema)?;
                self.cursor.expect(":")?;
                operation.operand_types = vec![self.ty()?];
                self.cursor.expect("->")?;
                self.cursor.expect("(")?;
                operation.result_types = self.types()?;
                self.cursor.expect(")")?;
            }
        }
        Ok(operation)
    }

    /// Attributes in braces, or none.
    fn attributes(&mut self, schema: &OpSchema) -> Parsed<Vec<Entry<Attribute>>> {
        let mut attributes = Vec::new();
        if !self.cursor.takes("{") {
            return Ok(attributes);
        }
        let mut more = !self.cursor.sees("}");
        while more {
            let at = self.cursor.at();
            let name = self.cursor.word("the name of an attribute")?;
            self.unique(&attributes, &name, at)?;
            self.cursor.expect("=")?;
            let value = self.attribute()?;
            attributes.push(Entry { name, value, at });
            more = self.cursor.takes(",");
        }
        self.cursor.expect("}")?;
        let place = |name: &str| schema.attributes.iter().position(|known| known.name == name);
        attributes.sort_by_key(|entry| (place(&entry.name).unwrap_or(usize::MAX), entry.name.clone()));
        Ok(attributes)
    }

    fn attribute(&mut self) -> Parsed<Attribute> {
        if self.cursor.sees("\"") {
            return self.cursor.string().map(Attribute::Text);
        }
        if self.cursor.sees("#") {
            return self.dialect_attribute();
        }
        if self.cursor.peek_name() == "array" {
            return self.array();
        }
        let at = self.cursor.at();
        match self.cursor.integer_or_float()? {
            Ok(value) => {
                if !self.cursor.takes(":") {
                    return Ok(Attribute::Integer(value));
                }
                match self.element()? {
                    Element::I64 => Ok(Attribute::Integer(value)),
                    Element::F32 => Ok(Attribute::Float(value as f32)),
                    other => Cursor::refuse_at(
                        at,
                        format!("expected a number of type i64 or f32, found `{other}`"),
                    ),
                }
            }
            Err(text) => {
                self.cursor.expect(":")?;
                let element = self.element()?;
                match (element, text.parse::<f32>()) {
                    (Element::F32, Ok(value)) if value.is_finite() => Ok(Attribute::Float(value)),
                    (Element::F32, _) => Cursor::refuse_at(
                        at,
                        format!("expected a number that f32 holds, found {}", shortened(text)),
                    ),
                    (other, _) => {
                        Cursor::refuse_at(at, format!("expected a number of type f32, found `{other}`"))
                    }
                }
            }
        }
    }

    fn array(&mut self) -> Parsed<Attribute> {
        self.cursor.keyword("array")?;
        self.cursor.expect("<")?;
        let at = self.cursor.at();
        let element = self.element()?;
        self.cursor.expect(":")?;
        let value = match element {
            Element::I64 => Attribute::Integers(self.three(|cursor| cursor.integer())?),
            Element::F64 => Attribute::Floats(self.three(|cursor| cursor.float())?),
            other => {
                return Cursor::refuse_at(at, format!("expected an array of i64 or f64, found `{other}`"));
            }
        };
        self.cursor.expect(">")?;
        Ok(value)
    }

    fn three<T>(&mut self, read: fn(&mut Cursor<'_>) -> Parsed<T>) -> Parsed<[T; 3]> {
        let first = read(&mut self.cursor)?;
        self.cursor.expect(",")?;
        let second = read(&mut self.cursor)?;
        self.cursor.expect(",")?;
        Ok([first, second, read(&mut self.cursor)?])
    }

    fn dialect_attribute(&mut self) -> Parsed<Attribute> {
        let prefix = "#lattice.";
        if !self.cursor.takes(prefix) {
            return self.cursor.expected("`#lattice.`");
        }
        let mnemonic = self.cursor.word("the name of an attribute of the dialect")?;
        self.cursor.expect("<")?;
        let value = if mnemonic == "packing" {
            Attribute::Packing(self.packing()?)
        } else {
            Attribute::Word { word: self.cursor.word("a word")?, mnemonic }
        };
        self.cursor.expect(">")?;
        Ok(value)
    }

    fn packing(&mut self) -> Parsed<PackingAttribute> {
        let kind = self.cursor.word("dense, int4 or int8")?;
        if kind == "dense" {
            return Ok(PackingAttribute::Dense);
        }
        self.parameter("group_size")?;
        let group_size = self.cursor.integer()?;
        self.parameter("scale_dtype")?;
        let scale_dtype = self.element()?;
        self.parameter("mode")?;
        let mode = self.cursor.word("affine")?;
        Ok(PackingAttribute::Affine { kind, group_size, scale_dtype, mode })
    }

    /// `, name =`.
    fn parameter(&mut self, name: &str) -> Parsed<()> {
        self.cursor.expect(",")?;
        self.cursor.keyword(name)?;
        self.cursor.expect("=")
    }

    fn element(&mut self) -> Parsed<Element> {
        let at = self.cursor.at();
        let name = self.cursor.word("an element type")?;
        match Element::named(&name) {
            Some(element) => Ok(element),
            None => {
                let known: Vec<&str> = Element::ALL.iter().map(|e| e.name()).collect();
                let message =
                    format!("expected an element type ({}), found {}", known.join(", "), shortened(&name));
                Cursor::refuse_at(at, message)
            }
        }
    }

    fn ty(&mut self) -> Parsed<Type> {
        if self.cursor.takes("!lattice.") {
            return match self.cursor.peek_name() {
                "sparse_tensor" => self.sparse_type(),
                "weight" => {
                    self.cursor.keyword("weight")?;
                    self.cursor.expect("<")?;
                    let family = self.cursor.word("a family of weights")?;
                    self.cursor.expect(",")?;
                    let element = self.element()?;
                    self.cursor.expect(">")?;
                    Ok(Type::Weight(WeightType { family, element }))
                }
                _ => self.cursor.expected("sparse_tensor or weight after `!lattice.`"),
            };
        }
        match self.cursor.peek_name() {
            "tensor" => self.tensor_type(),
            _ => {
                self.cursor.expected("a type: tensor<..>, !lattice.sparse_tensor<..> or !lattice.weight<..>")
            }
        }
    }

    fn sparse_type(&mut self) -> Parsed<Type> {
        self.cursor.keyword("sparse_tensor")?;
        self.cursor.expect("<")?;
        self.cursor.keyword("rank")?;
        self.cursor.expect("=")?;
        let rank = self.cursor.integer()?;
        self.parameter("coord")?;
        let coord = self.cursor.word("an order of coordinates")?;
        self.parameter("feature")?;
        let feature = self.cursor.word("a layout of features")?;
        self.parameter("dtype")?;
        let element = self.element()?;
        self.cursor.expect(">")?;
        Ok(Type::Sparse(SparseType { rank, coord, feature, element }))
    }

    fn tensor_type(&mut self) -> Parsed<Type> {
        self.cursor.keyword("tensor")?;
        self.cursor.expect("<")?;
        let mut dims = Vec::new();
        loop {
            let dim = if self.cursor.takes("?") {
                None
            } else if self.cursor.peek_name().starts_with(|c: char| c.is_ascii_digit()) {
                Some(self.cursor.dimension()?)
            } else {
                break;
            };
            dims.push(dim);
            if dims.len() > MOST_AXES {
                return self
                    .cursor
                    .refuse(format!("expected a tensor of at most {MOST_AXES} axes, found more"));
            }
            self.cursor.expect("x")?;
        }
        let element = self.element()?;
        self.cursor.expect(">")?;
        Ok(Type::Tensor(TensorType { dims, element }))
    }
}
