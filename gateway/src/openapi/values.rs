//! Schemas of values: one component for each type that columns have, and one for the conditions on it.

use indexmap::IndexSet;
use query::{
    Column, Comparisons, Digits, Type,
    number::{DOUBLE_DIGITS, MAX_EXACT},
    resources::Numbers,
};
use serde_json::{Value, json};

/// Any text but for NUL characters.
const TEXT: &str = r"^[^\u0000]*$";
/// Padded or not; bits that no byte has are zero.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw](==)?|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?$";
const CLOCK: &str = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?$";
/// A decimal that has few enough digits for every database.
const DECIMAL: &str = r"^-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$";

/// Kind of the values of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueKind {
    r#type: Type,
    /// Times may be infinite, of years beyond four digits, and `24:00:00`.
    is_wide: bool,
    /// The digits that values have.
    digits: Option<Digits>,
}

impl ValueKind {
    /// The kind of a column's values.
    pub fn of(column: &Column) -> Self {
        let is_time = matches!(column.r#type.item(), Type::Date | Type::Time | Type::Timestamp);
        Self { r#type: column.r#type, is_wide: is_time && column.abilities.wide_times, digits: None }
    }

    /// The kind of what is written to a column.
    pub fn written(column: &Column) -> Self {
        Self { digits: column.digits(), ..Self::of(column) }
    }

    fn item(self) -> Self {
        Self { r#type: self.r#type.item(), ..self }
    }

    fn is_list(self) -> bool {
        matches!(self.r#type, Type::List(_))
    }

    /// `Date`, `WideDateList`, `Decimal10_2`
    fn name(self) -> String {
        let name = match self.r#type.item() {
            Type::Bool => "Boolean",
            Type::Int16 => "Int16",
            Type::Int32 => "Int32",
            Type::Int64 => "Int64",
            Type::Float => "Float",
            Type::Decimal => "Decimal",
            Type::Text => "Text",
            Type::Bytes => "Bytes",
            Type::Date => "Date",
            Type::Time => "Time",
            Type::Timestamp => "Timestamp",
            Type::Uuid => "Uuid",
            Type::Json => "Json",
            Type::Other | Type::List(_) => "Native",
            Type::Any => "Any",
            Type::Address => "Address",
        };
        let (wide, list) = (if self.is_wide { "Wide" } else { "" }, if self.is_list() { "List" } else { "" });
        let digits = self.digits.map(|Digits { precision, scale }| format!("{precision}_{scale}"));
        format!("{wide}{name}{list}{}", digits.unwrap_or_default())
    }
}

/// A component that tables share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SharedSchema {
    /// Values as they are read.
    Output(ValueKind),
    /// Values as they are written and compared with.
    Input(ValueKind),
    /// A condition on a column: a value, several, null, or operators.
    Condition(ValueKind, Comparisons),
    /// The operators of such a condition.
    Operators(ValueKind, Comparisons),
}

impl SharedSchema {
    /// Its name among the components.
    pub fn name(self) -> String {
        let (kind, suffix) = match self {
            SharedSchema::Output(kind) => return kind.name(),
            SharedSchema::Input(kind) => return format!("{}Input", kind.name()),
            SharedSchema::Condition(kind, comparisons) => (kind.compared(comparisons), "Condition"),
            SharedSchema::Operators(kind, comparisons) => (kind.compared(comparisons), "Operators"),
        };
        format!("{kind}{suffix}")
    }
}

impl ValueKind {
    fn compared(self, comparisons: Comparisons) -> String {
        let comparisons = match comparisons {
            Comparisons::All => "",
            Comparisons::Equality => "Equality",
            Comparisons::None => "Null",
        };
        format!("{}{comparisons}", self.name())
    }
}

/// The components of values that a document uses, in the order of their first use.
#[derive(Debug, Default)]
pub struct SharedSchemas {
    used: IndexSet<SharedSchema>,
}

impl SharedSchemas {
    /// A reference to a component, which becomes part of the document.
    pub fn reference(&mut self, schema: SharedSchema) -> Value {
        self.used.insert(schema);
        reference(&schema.name())
    }

    /// The component at an index, which may use further ones; `None` beyond the last.
    pub fn component(&mut self, index: usize, numbers: Numbers) -> Option<(String, Value)> {
        let schema = *self.used.get_index(index)?;
        let value = match schema {
            SharedSchema::Output(kind) => self.output(kind, numbers),
            SharedSchema::Input(kind) => self.input(kind),
            SharedSchema::Condition(kind, comparisons) => self.condition(kind, comparisons),
            SharedSchema::Operators(kind, comparisons) => self.operators(kind, comparisons),
        };
        Some((schema.name(), value))
    }

    fn output(&mut self, kind: ValueKind, numbers: Numbers) -> Value {
        if kind.is_list() {
            return self.list(kind, SharedSchema::Output);
        }
        let not_finite = json!({ "enum": ["NaN", "Infinity", "-Infinity"] });
        match (kind.r#type, numbers) {
            (Type::Bool, _) => json!({ "type": "boolean" }),
            (Type::Int16, _) => integer(i16::MIN.into(), i16::MAX.into(), "int16"),
            (Type::Int32, _) => integer(i32::MIN.into(), i32::MAX.into(), "int32"),
            (Type::Int64, Numbers::Exact) => integer(i64::MIN, i64::MAX, "int64"),
            (Type::Int64, Numbers::Strings) => json!({ "anyOf": [
                integer(-MAX_EXACT, MAX_EXACT, "int64"),
                { "type": "string", "description": "An integer beyond 2^53.", "pattern": integers(i64::MIN, i64::MAX) },
            ] }),
            (Type::Float, _) => json!({ "anyOf": [{ "type": "number", "format": "double" }, not_finite] }),
            (Type::Decimal, Numbers::Exact) => json!({
                "description": "An exact decimal, as a number with all its digits.",
                "anyOf": [{ "type": "number" }, not_finite],
            }),
            (Type::Decimal, Numbers::Strings) => json!({ "description": "An exact decimal.", "type": "string" }),
            (Type::Date, _) if kind.is_wide => wide("2009-01-31"),
            (Type::Timestamp, _) if kind.is_wide => wide("2009-01-31T13:14:15Z"),
            (Type::Date, _) => json!({ "type": "string", "format": "date" }),
            (Type::Timestamp, _) => json!({ "type": "string", "format": "date-time" }),
            (Type::Time, _) => json!({ "description": "A time of day such as 13:14:15.5.", "type": "string" }),
            (Type::Text, _) => json!({ "type": "string" }),
            (Type::Bytes, _) => json!({ "type": "string", "contentEncoding": "base64" }),
            (Type::Uuid, _) => json!({ "type": "string", "format": "uuid" }),
            (Type::Json, _) => json!({ "description": "Any JSON." }),
            (Type::Any, _) => json!({ "type": ["number", "string"] }),
            (Type::Other | Type::Address | Type::List(_), _) => {
                json!({ "description": "A value of another type of the database, as it writes it.", "type": "string" })
            }
        }
    }

    fn input(&mut self, kind: ValueKind) -> Value {
        if kind.is_list() {
            return self.list(kind, SharedSchema::Input);
        }
        match kind.r#type {
            Type::Bool => json!({ "type": "boolean" }),
            Type::Int16 => integer_input(i16::MIN.into(), i16::MAX.into(), "int16"),
            Type::Int32 => integer_input(i32::MIN.into(), i32::MAX.into(), "int32"),
            Type::Int64 => integer_input(i64::MIN, i64::MAX, "int64"),
            Type::Float => json!({ "type": "number", "format": "double" }),
            Type::Decimal if let Some(digits) = kind.digits => decimal_input(digits),
            Type::Decimal => json!({
                "description": "A decimal; as a string where a double cannot hold it.",
                "anyOf": [{ "type": "number" }, { "type": "string", "pattern": DECIMAL }],
            }),
            Type::Date if kind.is_wide => wide("2009-01-31"),
            Type::Timestamp if kind.is_wide => wide("2009-01-31T13:14:15Z"),
            Type::Time if kind.is_wide => {
                json!({ "type": "string", "anyOf": [{ "pattern": CLOCK }, { "const": "24:00:00" }] })
            }
            Type::Date => json!({ "type": "string", "format": "date" }),
            Type::Timestamp => json!({ "type": "string", "format": "date-time" }),
            Type::Time => json!({ "type": "string", "pattern": CLOCK }),
            Type::Text => json!({ "type": "string", "pattern": TEXT }),
            Type::Bytes => json!({ "type": "string", "contentEncoding": "base64", "pattern": BASE64 }),
            Type::Uuid => json!({ "type": "string", "format": "uuid" }),
            Type::Json => json!({ "description": "Any JSON without NUL characters." }),
            Type::Any => json!({ "type": ["number", "string", "boolean"], "pattern": TEXT }),
            Type::Other | Type::Address | Type::List(_) => json!({
                "description": "A value of another type of the database, as it reads it.",
                "type": ["string", "number"],
                "pattern": TEXT,
            }),
        }
    }

    /// Lists of values and nulls, or of such lists; within one of JSON everything is JSON.
    fn list(&mut self, kind: ValueKind, of: fn(ValueKind) -> SharedSchema) -> Value {
        let mut items = vec![self.reference(of(kind.item()))];
        if kind.item().r#type != Type::Json {
            items.extend([self.reference(of(kind)), null_type()]);
        }
        json!({ "type": "array", "items": { "anyOf": items } })
    }

    fn condition(&mut self, kind: ValueKind, comparisons: Comparisons) -> Value {
        let mut forms = vec![null_type(), self.reference(SharedSchema::Operators(kind, comparisons))];
        if comparisons != Comparisons::None {
            forms.push(self.reference(SharedSchema::Input(kind)));
            if !kind.is_list() {
                forms.push(self.several(kind));
            }
        }
        json!({ "description": "A value, several of which one must be met, null, or operators.", "anyOf": forms })
    }

    fn operators(&mut self, kind: ValueKind, comparisons: Comparisons) -> Value {
        let mut members = serde_json::Map::new();
        if comparisons != Comparisons::None {
            let value = self.reference(SharedSchema::Input(kind));
            let several = self.several(kind);
            let mut equal = vec![value.clone(), null_type()];
            let mut within = vec![several.clone()];
            if !kind.is_list() {
                equal.push(several);
                within.push(value.clone());
            }
            members.extend(["$eq", "$ne"].map(|name| (name.to_owned(), json!({ "anyOf": equal }))));
            members.extend(["$in", "$nin"].map(|name| (name.to_owned(), json!({ "anyOf": within }))));
            if comparisons == Comparisons::All {
                let orders = ["$gt", "$gte", "$lt", "$lte"];
                members.extend(orders.map(|name| (name.to_owned(), json!({ "anyOf": [value, null_type()] }))));
            }
        }
        members.insert("$isNull".to_owned(), json!({ "type": "boolean" }));
        members.insert("$not".to_owned(), self.reference(SharedSchema::Operators(kind, comparisons)));
        json!({ "type": "object", "properties": members, "additionalProperties": false, "minProperties": 1 })
    }

    fn several(&mut self, kind: ValueKind) -> Value {
        let value = self.reference(SharedSchema::Input(kind));
        json!({ "type": "array", "items": { "anyOf": [value, null_type()] } })
    }
}

/// A reference to the component called `name`.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `schema`, or null.
pub fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, null_type()] })
}

/// Null alone.
pub fn null_type() -> Value {
    json!({ "type": "null" })
}

fn wide(example: &str) -> Value {
    let description = format!("Such as {example}; of any year that the database holds, and infinity or -infinity.");
    json!({ "type": "string", "description": description })
}

fn integer(least: i64, most: i64, format: &str) -> Value {
    json!({ "type": "integer", "format": format, "minimum": least, "maximum": most })
}

fn integer_input(least: i64, most: i64, format: &str) -> Value {
    json!({ "anyOf": [integer(least, most, format), { "type": "string", "pattern": integers(least, most) }] })
}

/// Decimals of so many digits: as numbers too, unless a double does not hold the largest.
fn decimal_input(Digits { precision, scale }: Digits) -> Value {
    let whole = match precision - scale {
        0 => "0".to_owned(),
        digits => format!("(0|[1-9][0-9]{{0,{}}})", digits - 1),
    };
    let fraction = if scale > 0 { format!(r"(\.[0-9]{{1,{scale}}})?") } else { String::new() };
    let mut number = json!({ "type": "number" });
    let largest = format!("{}.{}", "9".repeat(precision - scale), "9".repeat(scale));
    if precision <= DOUBLE_DIGITS
        && let Ok(largest) = format!("0{largest}0").parse::<f64>()
    {
        (number["minimum"], number["maximum"]) = (json!(-largest), json!(largest));
    }
    json!({ "anyOf": [number, { "type": "string", "pattern": format!("^-?{whole}{fraction}$") }] })
}

/// The pattern of texts of the integers from `least`, which is negative, to `most`.
fn integers(least: i64, most: i64) -> String {
    format!("^({}|-{})$", up_to(&most.to_string()), up_to(&least.unsigned_abs().to_string()))
}

/// The pattern of the integers from 0 to `most`, a number of at least two digits.
fn up_to(most: &str) -> String {
    let mut forms = vec!["0".to_owned(), format!("[1-9][0-9]{{0,{}}}", most.len() - 2)];
    for (place, digit) in most.char_indices() {
        let least = if place == 0 { '1' } else { '0' };
        if digit > least {
            let below = char::from(digit as u8 - 1);
            forms.push(format!("{}[{least}-{below}][0-9]{{{}}}", &most[..place], most.len() - place - 1));
        }
    }
    forms.push(most.to_owned());
    format!("({})", forms.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_integers_end_where_their_type_does() {
        assert_eq!(
            up_to("32767"),
            "(0|[1-9][0-9]{0,3}|[1-2][0-9]{4}|3[0-1][0-9]{3}|32[0-6][0-9]{2}|327[0-5][0-9]{1}|3276[0-6][0-9]{0}|32767)"
        );
        assert_eq!(up_to("10"), "(0|[1-9][0-9]{0,0}|10)");
        assert!(integers(i16::MIN.into(), i16::MAX.into()).ends_with("|32768))$"));
    }

    #[test]
    fn decimals_have_the_digits_that_their_column_declares() {
        let price = json!({ "anyOf": [
            { "type": "number", "minimum": -99_999_999.99, "maximum": 99_999_999.99 },
            { "type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,7})(\.[0-9]{1,2})?$" },
        ] });
        assert_eq!(decimal_input(Digits { precision: 10, scale: 2 }), price);
        let share = decimal_input(Digits { precision: 3, scale: 3 });
        assert_eq!(
            (&share["anyOf"][0]["maximum"], &share["anyOf"][1]["pattern"]),
            (&json!(0.999), &json!(r"^-?0(\.[0-9]{1,3})?$"))
        );
        let large = decimal_input(Digits { precision: 30, scale: 0 });
        assert_eq!(large["anyOf"][0], json!({ "type": "number" }));
    }

    #[test]
    fn a_component_brings_those_it_uses() {
        let mut shared = SharedSchemas::default();
        let kind = ValueKind { r#type: Type::Date.listed().unwrap(), is_wide: true, digits: None };
        shared.reference(SharedSchema::Condition(kind, Comparisons::Equality));
        let mut names = Vec::new();
        while let Some((name, _)) = shared.component(names.len(), Numbers::Exact) {
            names.push(name);
        }
        let expected =
            ["WideDateListEqualityCondition", "WideDateListEqualityOperators", "WideDateListInput", "WideDateInput"];
        assert_eq!(names, expected);
    }
}
