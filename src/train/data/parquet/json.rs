//! A row as JSON text.

use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

/// A row as an object. Bytes that are no text are null, as are floats that are no numbers; dates and times
/// are texts.
pub(super) fn row(row: &Row) -> String {
    object(row).to_string()
}

fn object(row: &Row) -> Value {
    let cells = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
    Value::Object(cells.collect())
}

fn value(field: &Field) -> Value {
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(is) => (*is).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float16(x) => float(x.to_f64()),
        // By its shortest digits: 0.1, not 0.10000000149011612.
        Field::Float(x) => x.to_string().parse().map_or(Value::Null, float),
        Field::Double(x) => float(*x),
        Field::Str(text) => text.as_str().into(),
        // Some programs do not say that a text is one.
        Field::Bytes(bytes) => str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, of)| {
                let key = match value(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, value(of))
            });
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => other.to_string().into(),
    }
}
