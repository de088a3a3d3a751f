//! The operations that [`program`](super::program) puts in place of minijinja's instructions. Each pays for
//! its work with [`fuel`](super::fuel) first, and keeps the invariants stated there.

use minijinja::value::{Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::fuel::{
    ITEM, invalid, materialized, namespace_item, owned, pay, pay_bytes, pay_for, pay_times, remaining,
};
use super::python_text::python_text;
use super::value::object;

/// A variable that is 1.
pub(in crate::chat) const ONE: &str = "_one";

macro_rules! operations {
    ($($operation:ident $name:literal $function:expr;)*) => {
        /// An operation that replaces one or more instructions.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Operation { $($operation),* }

        impl Operation {
            /// The name of its filter, which cannot be written in a template.
            pub(super) fn name(self) -> &'static str {
                match self { $(Operation::$operation => $name),* }
            }
        }

        /// Adds the filters of the operations.
        pub(super) fn add_to(environment: &mut Environment<'_>) {
            environment.add_global(ONE, 1);
            $(environment.add_filter($name, |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
                let values: Vec<Value> = values.0.into_iter().map(Value::from).collect();
                let operation: fn(&mut State<'_, '_>, Vec<Value>) -> Result<Value, Error> = $function;
                operation(state, values)
            });)*
        }
    };
}

operations! {
    Concatenate "~" concatenate;
    Equal "==" |state, values| compare(state, &values, |a, b| a == b);
    Unequal "!=" |state, values| compare(state, &values, |a, b| a != b);
    Less "<" |state, values| compare(state, &values, |a, b| a < b);
    LessOrEqual "<=" |state, values| compare(state, &values, |a, b| a <= b);
    Greater ">" |state, values| compare(state, &values, |a, b| a > b);
    GreaterOrEqual ">=" |state, values| compare(state, &values, |a, b| a >= b);
    In "=in" contains;
    List "=list" |state, values| owned(state, Value::from(values));
    Tuple "=tuple" |state, values| owned(state, Value::from(Tuple::from(values)));
    Map "=map" map;
    Item "=item" item;
    Filter "=filter" filter;
    Test "=test" test;
    Method "=method" method;
    Materialize "=materialize" |state, values| materialized(state, only(values));
    NamespaceItem "=namespace_item" |_, values| namespace_item(only(values));
    Iterate "=iterate" iterated;
    Weigh "=weigh" weigh;
}

/// The one value of an operation.
fn only(mut values: Vec<Value>) -> Value {
    values.pop().unwrap_or_default()
}

/// The value that a loop iterates over: minijinja collects the keys of a map first. As in Python, none is not
/// iterable.
fn iterated(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let value = only(values);
    if value.is_none() {
        return Err(invalid("none is not iterable"));
    }
    if value.kind() == ValueKind::Map {
        pay_for(state, value.len().unwrap_or(0), ITEM as usize)?;
    }
    Ok(value)
}

/// Pays for the values, and returns them as a tuple to be unpacked again.
fn weigh(state: &mut State<'_, '_>, mut values: Vec<Value>) -> Result<Value, Error> {
    // Slicing goes through the value only if it is a text.
    let sliced = values.len() == 4 && values.first().is_some_and(|value| value.as_str().is_none());
    pay(state, if sliced { &values[1..] } else { &values })?;
    values.reverse();
    Ok(Value::from(Tuple::from(values)))
}

fn two(values: &[Value]) -> Result<(&Value, &Value), Error> {
    let [a, b] = values else { return Err(invalid("an operation of two values")) };
    Ok((a, b))
}

fn concatenate(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let (a, b) = two(&values)?;
    let (a, b) = (python_text(state, a)?, python_text(state, b)?);
    if (a.len() + b.len()) as u64 > remaining(state) {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Ok(Value::from([a, b].concat()))
}

fn compare(
    state: &mut State<'_, '_>,
    values: &[Value],
    compared: fn(&Value, &Value) -> bool,
) -> Result<Value, Error> {
    let (a, b) = two(values)?;
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => pay_bytes(state, a.len().min(b.len()) as u64 / 16)?,
        _ if a.as_object().is_some() && b.as_object().is_some() => pay(state, values)?,
        _ => {}
    }
    Ok(compared(a, b).into())
}

fn contains(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let (_, container) = two(&values)?;
    match container.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined => {}
        _ => return Err(invalid("cannot perform a containment check on this value")),
    }
    // A key is looked up.
    let looked_into = if container.kind() == ValueKind::Map { &values[..1] } else { &values };
    pay(state, looked_into)?;
    state.perform_test("in", &values).map(Value::from)
}

/// A map of alternating keys and values.
fn map(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let mut parts = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        if key.as_object().is_some() {
            pay(state, std::slice::from_ref(&key))?;
        }
        parts.push((key, value));
    }
    owned(state, object(parts))
}

fn item(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let (value, key) = two(&values)?;
    if let Some(text) = value.as_str() {
        pay_for(state, text.len(), 1)?;
    }
    if key.as_object().is_some() {
        pay(state, std::slice::from_ref(key))?;
    }
    value.get_item(key)
}

/// Removes the last value, which is the name of the called filter, test or method.
fn take_name(values: &mut Vec<Value>) -> String {
    let name = values.pop().unwrap_or_default();
    name.as_str().unwrap_or_default().split_ascii_whitespace().collect()
}

/// Filters that look at a value and its items but no deeper, or that pay for themselves.
const SHALLOW_FILTERS: [&str; 16] = [
    "length", "count", "first", "last", "default", "d", "list", "items", "reverse", "bool", "attr", "zip",
    "chain", "tojson", "string", "int",
];
/// Filters that put their arguments into new lists.
const NESTING_FILTERS: [&str; 7] = ["items", "zip", "dictsort", "groupby", "batch", "slice", "map"];
/// Tests that look at a value but not into it.
const SHALLOW_TESTS: [&str; 17] = [
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "boolean",
    "integer",
    "int",
    "float",
    "true",
    "false",
    "odd",
    "even",
    "callable",
];

fn filter(state: &mut State<'_, '_>, mut values: Vec<Value>) -> Result<Value, Error> {
    let name = take_name(&mut values);
    let length = values.first().and_then(|value| value.as_object().and(value.len())).unwrap_or(0) as u64;
    match name.as_str() {
        shallow if SHALLOW_FILTERS.contains(&shallow) => {
            // The argument is a key.
            pay(state, values.get(1..).filter(|_| shallow == "attr").unwrap_or_default())?;
        }
        "sort" | "unique" | "groupby" | "dictsort" | "min" | "max" => {
            pay_times(state, &values, u64::from(u64::BITS - length.leading_zeros()).max(1))?;
        }
        // Each item may be compared with all arguments.
        "map" | "select" | "reject" | "selectattr" | "rejectattr" if !is_simple(&name, &values) => {
            let (items, others) = values.split_at(1.min(values.len()));
            pay(state, items)?;
            pay_times(state, others, length.max(1))?;
        }
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {}
        _ => pay(state, &values)?,
    }
    let result = state.apply_filter(&name, &values).map_err(|error| match error.kind() {
        ErrorKind::UnknownFilter if error.detail().is_none() => {
            Error::new(ErrorKind::UnknownFilter, format!("filter {name} is unknown"))
        }
        _ => error,
    })?;
    if NESTING_FILTERS.contains(&name.as_str()) { owned(state, result) } else { materialized(state, result) }
}

/// Whether a filter only compares each item, or an attribute of it, with a short text or a number.
fn is_simple(name: &str, values: &[Value]) -> bool {
    let arguments = values.get(1..).unwrap_or_default();
    if name == "map" {
        return matches!(arguments, [options] if options.is_kwargs());
    }
    let mut arguments = arguments.iter().skip(usize::from(name.ends_with("attr")));
    let test = arguments.next().map_or("defined", |test| test.as_str().unwrap_or_default());
    let short =
        |value: &Value| value.as_object().is_none() && value.as_str().is_none_or(|text| text.len() <= 64);
    (SHALLOW_TESTS.contains(&test) || matches!(test, "equalto" | "eq" | "==" | "ne" | "!="))
        && arguments.all(short)
}

fn test(state: &mut State<'_, '_>, mut values: Vec<Value>) -> Result<Value, Error> {
    let name = take_name(&mut values);
    if !SHALLOW_TESTS.contains(&name.as_str()) {
        pay(state, &values)?;
    }
    let result = state.perform_test(&name, &values).map_err(|error| match error.kind() {
        ErrorKind::UnknownTest if error.detail().is_none() => {
            Error::new(ErrorKind::UnknownTest, format!("test {name} is unknown"))
        }
        _ => error,
    })?;
    Ok(result.into())
}

fn method(state: &mut State<'_, '_>, mut values: Vec<Value>) -> Result<Value, Error> {
    let name = take_name(&mut values);
    let Some((value, arguments)) = values.split_first() else { return Err(invalid("a method of nothing")) };
    match name.as_str() {
        // minijinja divides by the number of arguments.
        "cycle" if arguments.is_empty() => return Err(invalid("cycle() needs at least one argument")),
        "count" | "index" => pay(state, std::slice::from_ref(value))?,
        _ => {}
    }
    pay(state, arguments)?;
    if let Some(text) = value.as_str() {
        pay_for(state, text.len(), 1)?;
    }
    let result = value.call_method(state, &name, arguments)?;
    owned(state, result)
}
