//! The cost of looking into values, paid with fuel before the look.
//!
//! minijinja charges fuel per instruction, but compares, hashes and writes values without asking how large
//! they are all the way down. So everything that looks into values [`pay`]s for their content first. Two
//! invariants hold after every operation: a list or map that it made is not a lazy view of others and is
//! nested at most [`MAX_DEPTH`] deep, and no namespace is within another value. [`owned`] and
//! [`materialized`] establish them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::value::object;

/// The fuel of a rendering: about one unit per instruction, and one for 64 bytes of data or for looking at
/// four items. It bounds the time to some seconds, and the texts and lists that are made to 64 MB. Each
/// rendering in progress may need, in addition, a copy of a text while it is assembled, and the values of
/// short lists besides their slots.
pub(super) const FUEL: u64 = 1_000_000;
/// How deep a value may be nested: less than fills a thread's stack. Python's limit is similar.
pub(super) const MAX_DEPTH: usize = 200;

const STATE_WITHIN: &str = "a namespace or a loop cannot be within another value";

/// Bytes that one unit of fuel pays for.
const BYTES: u64 = 64;
/// The cost of looking at an item of a list, in bytes.
pub(super) const ITEM: u64 = 16;
/// The cost of a slot of a list, in bytes: what minijinja takes for a list that a filter returns.
pub(super) const SLOT: u64 = 32;

/// An operation that is not possible with these values.
pub(super) fn invalid(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// The remaining fuel, in bytes.
pub(super) fn remaining(state: &State<'_, '_>) -> u64 {
    state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining.saturating_mul(BYTES))
}

/// Pays for `bytes` bytes.
///
/// # Errors
/// If there is not enough fuel.
pub(super) fn pay_bytes(state: &State<'_, '_>, bytes: u64) -> Result<(), Error> {
    if bytes < BYTES { Ok(()) } else { state.consume_fuel(bytes / BYTES) }
}

/// Pays for `count` items of `bytes` bytes that are about to be made.
///
/// # Errors
/// If there is not enough fuel.
pub(super) fn pay_for(state: &State<'_, '_>, count: usize, bytes: usize) -> Result<(), Error> {
    pay_bytes(state, (count as u64).saturating_mul(bytes as u64))
}

/// Pays for looking at everything in the values.
///
/// # Errors
/// If there is not enough fuel, or a value is nested too deeply.
pub(super) fn pay(state: &State<'_, '_>, values: &[Value]) -> Result<(), Error> {
    pay_times(state, values, 1)
}

/// [`pay`] for `times` looks.
///
/// # Errors
/// Those of [`pay`].
pub(super) fn pay_times(state: &State<'_, '_>, values: &[Value], times: u64) -> Result<(), Error> {
    let budget = remaining(state);
    let mut walk = Walk { budget, count_text: true, allow_states: true };
    for value in values {
        walk.visit(value, 0)?;
    }
    pay_bytes(state, (budget - walk.budget).saturating_mul(times))
}

/// A walk through a value.
struct Walk {
    /// The bytes that may still be spent.
    budget: u64,
    /// Whether the bytes of texts count.
    count_text: bool,
    /// Whether the value may contain namespaces or loops.
    allow_states: bool,
}

impl Walk {
    fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
        Ok(())
    }

    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.spend(if self.count_text { ITEM + text.len() as u64 } else { ITEM });
        }
        self.spend(ITEM)?;
        let kind = value.kind();
        if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(invalid("a value is nested too deeply"));
        }
        if !self.allow_states && depth > 0 && is_state(value) {
            return Err(invalid(STATE_WITHIN));
        }
        for part in value.try_iter()?.checked() {
            let part = part?;
            self.visit(&part, depth + 1)?;
            if kind == ValueKind::Map {
                self.visit(&value.get_item(&part)?, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Whether the value is a namespace or the variable `loop`, which hold other values that a walk does not see.
fn is_state(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        let name = object.type_name();
        name.ends_with("::Namespace") || name.ends_with("::Loop")
    })
}

/// A value that was just made of other values, checked for both invariants.
///
/// # Errors
/// Those of [`materialized`]; a value that is nested too deeply or contains a namespace or a loop.
pub(super) fn owned(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = materialized(state, value)?;
    if value.as_object().is_none() || is_state(&value) {
        return Ok(value);
    }
    let budget = remaining(state);
    let mut walk = Walk { budget, count_text: false, allow_states: false };
    walk.visit(&value, 0)?;
    pay_bytes(state, budget - walk.budget)?;
    Ok(value)
}

/// A value that was just made of the items of other values, and so is nested no deeper than they are. A lazy
/// list or map is replaced by its content.
///
/// # Errors
/// If there is not enough fuel for its length.
pub(super) fn materialized(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let is_lazy = value.as_object().is_some_and(|object| object.type_name().contains("::merge_object::"));
    match value.kind() {
        ValueKind::Iterable | ValueKind::Seq | ValueKind::Map if is_state(&value) => Ok(value),
        ValueKind::Seq | ValueKind::Map if !is_lazy => Ok(value),
        kind @ (ValueKind::Iterable | ValueKind::Seq | ValueKind::Map) => {
            let (mut items, mut budget) = (Vec::new(), remaining(state));
            for item in value.try_iter()?.checked() {
                budget = budget.checked_sub(SLOT).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
                items.push(item?);
            }
            if kind == ValueKind::Map {
                let parts = items.into_iter().map(|key| Ok((key.clone(), value.get_item(&key)?)));
                Ok(object(parts.collect::<Result<_, Error>>()?))
            } else {
                Ok(Value::from(items))
            }
        }
        _ => Ok(value),
    }
}

/// A value that is about to be put into a namespace.
///
/// # Errors
/// If it is a namespace or a loop.
pub(super) fn namespace_item(value: Value) -> Result<Value, Error> {
    if is_state(&value) { Err(invalid(STATE_WITHIN)) } else { Ok(value) }
}
