//! What a template does with values, paid for before it is done.
//!
//! [`program`](super::program) puts these in the place of minijinja's instructions. Two things hold after each of them: a
//! list or map that it made is no lazy view of others, and is nested no deeper than [`DEPTH`]; and no namespace is
//! within another value. What looks into values [`pay`]s for all that is in them first.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::{message, python};

/// So deep may a value be nested, less than fills a thread's stack; Python stops at about as much.
pub(super) const DEPTH: usize = 200;
/// The variable that is 1.
pub(super) const ONE: &str = "_one";

const WITHIN: &str = "a namespace or a loop cannot be within another value";

/// Bytes that one fuel pays for.
const BYTES: u64 = 64;
/// What looking at an item of a list costs, in bytes.
const ITEM: u64 = 16;
/// What a place in a list costs, in bytes; minijinja takes as much for a list that a filter gives.
const PLACE: u64 = 32;

macro_rules! operations {
    ($($operation:ident $name:literal $function:expr;)*) => {
        /// An operation that stands for instructions.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Operation { $($operation),* }

        impl Operation {
            /// The name of its filter, which no template can write.
            pub(super) fn name(self) -> &'static str {
                match self { $(Operation::$operation => $name),* }
            }
        }

        /// Add the operations to what a template can do.
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
    List "=list" |state, values| made(state, Value::from(values));
    Tuple "=tuple" |state, values| made(state, Value::from(Tuple::from(values)));
    Map "=map" map;
    Item "=item" item;
    Filter "=filter" filter;
    Test "=test" test;
    Method "=method" method;
    Listed "=listed" |state, values| listed(state, only(values));
    Held "=held" |_, values| held(only(values));
    Over "=over" over;
    Weigh "=weigh" weigh;
}

/// The one value of an operation.
fn only(mut values: Vec<Value>) -> Value {
    values.pop().unwrap_or_default()
}

fn bad(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// What is left to pay with, in bytes.
fn left(state: &State<'_, '_>) -> u64 {
    state.fuel_levels().map_or(u64::MAX, |(_, left)| left.saturating_mul(BYTES))
}

/// Pays for so many bytes.
fn pay_bytes(state: &State<'_, '_>, bytes: u64) -> Result<(), Error> {
    if bytes < BYTES { Ok(()) } else { state.consume_fuel(bytes / BYTES) }
}

/// Pays for something of so many bytes that is going to be made.
///
/// # Errors
/// If there is not enough fuel left.
pub(super) fn pay_for(state: &State<'_, '_>, count: usize, bytes: usize) -> Result<(), Error> {
    pay_bytes(state, (count as u64).saturating_mul(bytes as u64))
}

/// Pays for a look at all that is in the values.
///
/// # Errors
/// If there is not enough fuel left, or a value is nested too deeply.
pub(super) fn pay(state: &State<'_, '_>, values: &[Value]) -> Result<(), Error> {
    pay_times(state, values, 1)
}

fn pay_times(state: &State<'_, '_>, values: &[Value], times: u64) -> Result<(), Error> {
    let budget = left(state);
    let mut walk = Walk { budget, text: true, states: true };
    for value in values {
        walk.take(value, 0)?;
    }
    pay_bytes(state, (budget - walk.budget).saturating_mul(times))
}

/// A walk through a value.
struct Walk {
    /// So many bytes more are paid for.
    budget: u64,
    /// Whether the bytes of texts count.
    text: bool,
    /// Whether there may be namespaces or loops in it.
    states: bool,
}

impl Walk {
    fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        let left = self.budget.checked_sub(bytes).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
        self.budget = left;
        Ok(())
    }

    fn take(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.spend(if self.text { ITEM + text.len() as u64 } else { ITEM });
        }
        self.spend(ITEM)?;
        let kind = value.kind();
        if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        if depth > DEPTH {
            return Err(bad("a value is nested too deeply"));
        }
        if !self.states && depth > 0 && is_state(value) {
            return Err(bad(WITHIN));
        }
        for part in value.try_iter()?.checked() {
            let part = part?;
            self.take(&part, depth + 1)?;
            if kind == ValueKind::Map {
                self.take(&value.get_item(&part)?, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Whether it is a namespace, or the variable `loop`, which holds what is looped over out of sight.
fn is_state(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        let name = object.type_name();
        name.ends_with("::Namespace") || name.ends_with("::Loop")
    })
}

/// A value that was just made, of other values.
///
/// # Errors
/// Those of [`listed`], or if it is nested too deeply, or holds a namespace or a loop.
fn made(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = listed(state, value)?;
    if value.as_object().is_none() || is_state(&value) {
        return Ok(value);
    }
    let budget = left(state);
    let mut walk = Walk { budget, text: false, states: false };
    walk.take(&value, 0)?;
    pay_bytes(state, budget - walk.budget)?;
    Ok(value)
}

/// A value that was just made of what other values hold, so that it is nested no deeper than these; of a lazy list the
/// list itself.
///
/// # Errors
/// If it is longer than the fuel that is left.
fn listed(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let is_lazy = value.as_object().is_some_and(|object| object.type_name().contains("::merge_object::"));
    match value.kind() {
        ValueKind::Iterable | ValueKind::Seq | ValueKind::Map if is_state(&value) => Ok(value),
        ValueKind::Seq | ValueKind::Map if !is_lazy => Ok(value),
        kind @ (ValueKind::Iterable | ValueKind::Seq | ValueKind::Map) => {
            let (mut items, mut budget) = (Vec::new(), left(state));
            for item in value.try_iter()?.checked() {
                budget = budget.checked_sub(PLACE).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
                items.push(item?);
            }
            if kind == ValueKind::Map {
                let parts = items.into_iter().map(|key| Ok((key.clone(), value.get_item(&key)?)));
                Ok(message::object(parts.collect::<Result<_, Error>>()?))
            } else {
                Ok(Value::from(items))
            }
        }
        _ => Ok(value),
    }
}

/// A value that is put into a namespace.
///
/// # Errors
/// If it is a namespace or a loop.
pub(super) fn held(value: Value) -> Result<Value, Error> {
    if is_state(&value) { Err(bad(WITHIN)) } else { Ok(value) }
}

/// What is looped over: the keys of a map are gathered first. To Python nothing is no empty list.
fn over(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let value = only(values);
    if value.is_none() {
        return Err(bad("none cannot be looped over"));
    }
    if value.kind() == ValueKind::Map {
        pay_for(state, value.len().unwrap_or(0), ITEM as usize)?;
    }
    Ok(value)
}

/// The values in turn, to be unpacked again, when they are paid for.
fn weigh(state: &mut State<'_, '_>, mut values: Vec<Value>) -> Result<Value, Error> {
    // Of what is sliced only a text is gone through.
    let sliced = values.len() == 4 && values.first().is_some_and(|value| value.as_str().is_none());
    pay(state, if sliced { &values[1..] } else { &values })?;
    values.reverse();
    Ok(Value::from(Tuple::from(values)))
}

fn two(values: &[Value]) -> Result<(&Value, &Value), Error> {
    let [a, b] = values else { return Err(bad("an operation of two values")) };
    Ok((a, b))
}

fn concatenate(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let (a, b) = two(&values)?;
    let (a, b) = (python::text(state, a)?, python::text(state, b)?);
    if (a.len() + b.len()) as u64 > left(state) {
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
        _ => return Err(bad("cannot perform a containment check on this value")),
    }
    // A key is looked up.
    let looked_into = if container.kind() == ValueKind::Map { &values[..1] } else { &values };
    pay(state, looked_into)?;
    state.perform_test("in", &values).map(Value::from)
}

/// A map of keys and values in turn.
fn map(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    let mut parts = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        if key.as_object().is_some() {
            pay(state, std::slice::from_ref(&key))?;
        }
        parts.push((key, value));
    }
    made(state, message::object(parts))
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

/// The name of what is called, which comes last.
fn name(values: &mut Vec<Value>) -> String {
    let name = values.pop().unwrap_or_default();
    name.as_str().unwrap_or_default().split_ascii_whitespace().collect()
}

/// Filters that look only at a value itself, or at what it holds but no further, or that pay for what they do.
const SHALLOW_FILTERS: [&str; 16] = [
    "length", "count", "first", "last", "default", "d", "list", "items", "reverse", "bool", "attr", "zip",
    "chain", "tojson", "string", "int",
];
/// Filters that put what they are given into new lists.
const NESTING_FILTERS: [&str; 7] = ["items", "zip", "dictsort", "groupby", "batch", "slice", "map"];
/// Tests that look only at a value itself.
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
    let name = name(&mut values);
    let length = values.first().and_then(|value| value.as_object().and(value.len())).unwrap_or(0) as u64;
    match name.as_str() {
        shallow if SHALLOW_FILTERS.contains(&shallow) => {
            // A key, or what is given for want of another value.
            pay(state, values.get(1..).filter(|_| shallow == "attr").unwrap_or_default())?;
        }
        "sort" | "unique" | "groupby" | "dictsort" | "min" | "max" => {
            pay_times(state, &values, u64::from(u64::BITS - length.leading_zeros()).max(1))?;
        }
        // Each item meets the other values.
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
    if NESTING_FILTERS.contains(&name.as_str()) { made(state, result) } else { listed(state, result) }
}

/// Whether a filter of items only compares them, or a part of them, with a text or a number.
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
    let name = name(&mut values);
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
    let name = name(&mut values);
    let Some((value, arguments)) = values.split_first() else { return Err(bad("a method of nothing")) };
    match name.as_str() {
        // minijinja divides by their number.
        "cycle" if arguments.is_empty() => return Err(bad("cycle() takes the values to go through")),
        "count" | "index" => pay(state, std::slice::from_ref(value))?,
        _ => {}
    }
    pay(state, arguments)?;
    if let Some(text) = value.as_str() {
        pay_for(state, text.len(), 1)?;
    }
    let result = value.call_method(state, &name, arguments)?;
    made(state, result)
}

/// `namespace(name=value, ...)`, or of a map.
pub(super) fn namespace(state: &State<'_, '_>, parts: Option<ValueOrKwargs>) -> Result<Value, Error> {
    if let Some(parts) = &parts {
        made(state, Value::clone(parts))?;
    }
    minijinja::functions::namespace(parts)
}

/// `dict(name=value, ...)`, with the parts of a map.
pub(super) fn dict(state: &State<'_, '_>, parts: Option<Value>, others: Kwargs) -> Result<Value, Error> {
    pay_for(state, parts.as_ref().and_then(Value::len).unwrap_or(0), 2 * PLACE as usize)?;
    made(state, minijinja::functions::dict(parts, others)?)
}

/// The filter `sum`, of numbers.
pub(super) fn sum(
    state: &mut State<'_, '_>,
    values: &Value,
    attribute: Option<Value>,
    start: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let start = start.or(options.get("start")?).unwrap_or_else(|| 0.into());
    let attribute = attribute.or(options.get("attribute")?);
    options.assert_all_used()?;
    // Of texts and lists minijinja makes the sum anew with each.
    if start.kind() != ValueKind::Number {
        return Err(bad("can only sum numbers"));
    }
    let attribute = attribute.as_ref().and_then(Value::as_str);
    let none = Kwargs::from_iter(std::iter::empty::<(String, Value)>());
    minijinja::filters::sum(state, values.clone(), attribute, Some(start), none)
}
