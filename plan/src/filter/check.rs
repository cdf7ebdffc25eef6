//! What an expression may refer to, and what it may cost.
//!
//! In: a parsed expression. Out: its [`Cost`], or a refusal.
//!
//! - Names: `event`, the variables of loops around them, CEL's type names; functions of CEL's
//!   standard library.
//! - Loops (`all`, `exists`, `exists_one`, `map`, `filter`) stand at most [`MAX_LOOPS`] deep, and
//!   what a `map` gives is a part of its element: chained, it could double a value time and again.
//! - `matches` takes a literal pattern that compiles small; it is compiled here, once.
//! - Each node costs once for each turn of the loop that it stands in. An operation that reads whole
//!   values costs the body's bytes for each turn; where it reads elements of the innermost loop alone, for
//!   each turn of the outer one, since a list's elements together are no larger than the body. How many
//!   turns there are is counted while it runs ([`super::meter`]).
//!
//! It must never let a cost pass that it cannot bound.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::FilterError;
use super::meter::Pattern;

/// How deep loops may stand in each other.
const MAX_LOOPS: usize = 2;
/// How deep an expression may be: evaluation recurses.
const MAX_DEPTH: usize = 64;
/// The sizes of a compiled pattern, in bytes, with the units that it costs for each byte of a text: the
/// engine follows each of its states at once, where it finds nothing better.
const PATTERN_SIZES: [(usize, u64); 3] = [(4 << 10, 64), (32 << 10, 512), (256 << 10, 4096)];
/// What the engine may keep in memory to find something better, in bytes.
const PATTERN_CACHE: usize = 256 << 10;
/// The units of one evaluation; one is about a nanosecond.
pub(super) const BUDGET: u64 = 1_000_000;
const NODE_UNITS: u64 = 64;

const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "size", "contains", "startsWith", "endsWith", "matches",
    "bool", "bytes", "double", "dyn", "duration", "int", "string", "timestamp", "type", "uint",
    "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
    "getMilliseconds", "getMinutes", "getMonth", "getSeconds",
    "hasValue", "or", "orValue", "value",
];

const COMPARISONS: &[&str] = &[
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    "startsWith",
    "endsWith",
];

/// These read no more than the node itself.
const CHEAP: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
];

/// What an evaluation costs.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// What stands in no loop.
    once: Turn,
    /// One turn of each loop, in the order in which they are met.
    pub(super) turns: Vec<Turn>,
    /// The patterns, in the order in which they are met.
    pub(super) patterns: Vec<Pattern>,
    references: u64,
    additions: u64,
}

/// What is done once, or for each turn of a loop, loops in it apart.
#[derive(Debug, Default)]
pub(super) struct Turn {
    nodes: u64,
    whole_values: u64,
}

/// Checks an expression.
pub(super) fn check(expression: &IdedExpr) -> Result<Cost, FilterError> {
    let mut check = Check::default();
    check.visit(&expression.expr, 0)?;
    Ok(check.cost)
}

#[derive(Default)]
struct Check {
    /// The loops around, innermost last.
    scope: Vec<Loop>,
    cost: Cost,
}

/// A loop's variables, and its number.
struct Loop {
    first: String,
    second: Option<String>,
    accumulator: String,
    number: usize,
}

// === impl Turn ===

impl Turn {
    /// Over values of so many bytes.
    pub(super) fn units(&self, bytes: u64) -> u64 {
        self.nodes.saturating_mul(NODE_UNITS).saturating_add(self.whole_values.saturating_mul(bytes))
    }
}

// === impl Cost ===

impl Cost {
    /// The most bytes of a value, for a body of so many: it can be put together from as many as are named.
    pub(super) fn largest_value(&self, body_bytes: usize) -> u64 {
        let bytes = u64::try_from(body_bytes).unwrap_or(u64::MAX);
        bytes.saturating_mul(1 + self.additions + self.references)
    }

    /// What is left for loops and patterns, once what stands in no loop is paid for.
    pub(super) fn left(&self, largest_value: u64) -> Result<u64, FilterError> {
        BUDGET.checked_sub(self.once.units(largest_value)).filter(|left| *left > 0).ok_or_else(exhausted)
    }
}

// === impl Check ===

impl Check {
    fn visit(&mut self, expr: &Expr, depth: usize) -> Result<(), FilterError> {
        if depth > MAX_DEPTH {
            return Err(too_costly("it is nested too deeply; write it flatter"));
        }
        self.turn(self.scope.len()).nodes += 1;
        let depth = depth + 1;
        match expr {
            Expr::Ident(name) => self.name(name),
            Expr::Literal(_) => Ok(()),
            Expr::Select(select) => self.visit(&select.operand.expr, depth),
            Expr::Call(call) => self.call(call, depth),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::List(list) => {
                self.reads_whole(&list.elements.iter().collect::<Vec<_>>());
                list.elements.iter().try_for_each(|element| self.visit(&element.expr, depth))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr, depth)),
            Expr::Struct(_) => Err(syntax("it makes a message, of which there are none here")),
            Expr::Unspecified => Err(syntax("it is empty")),
        }
    }

    fn entry(&mut self, entry: &EntryExpr, depth: usize) -> Result<(), FilterError> {
        let EntryExpr::MapEntry(entry) = entry else { return Err(syntax("a map's entry is `key: value`")) };
        self.reads_whole(&[&entry.key, &entry.value]);
        self.visit(&entry.key.expr, depth)?;
        self.visit(&entry.value.expr, depth)
    }

    fn name(&mut self, name: &str) -> Result<(), FilterError> {
        let is_bound = self.scope.iter().any(|Loop { first, second, accumulator, number: _ }| {
            name == first || name == accumulator || second.as_deref() == Some(name)
        });
        self.cost.references += u64::from(name == "event" || is_bound);
        if name == "event" || is_bound || TYPES.contains(&name) {
            return Ok(());
        }
        Err(syntax(&format!("{name:?} is not known; the only variable is `event`, the event's body")))
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Result<(), FilterError> {
        let name = call.func_name.as_str();
        let is_operator = name.starts_with(['_', '@', '!', '-']);
        if !is_operator && !FUNCTIONS.contains(&name) {
            return Err(syntax(&format!("there is no function {name:?}")));
        }
        let operands: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).collect();
        if name == "matches" {
            self.cost.patterns.push(pattern(operands.last().copied())?);
        }
        self.cost.additions += u64::from(name == operators::ADD && !self.is_of_macro(&operands));
        let compares_literal =
            COMPARISONS.contains(&name) && operands.iter().any(|operand| is_literal(&operand.expr));
        if !CHEAP.contains(&name) && !compares_literal {
            self.reads_whole(&operands);
        }
        operands.into_iter().try_for_each(|operand| self.visit(&operand.expr, depth))
    }

    /// Whether a macro wrote it, which names an accumulator that nobody can write.
    fn is_of_macro(&self, operands: &[&IdedExpr]) -> bool {
        let is_accumulator =
            |name: &String| self.scope.last().is_some_and(|innermost| innermost.accumulator == *name);
        matches!(operands.first().map(|operand| &operand.expr), Some(Expr::Ident(name)) if is_accumulator(name))
    }

    /// Charges an operation that reads all of its operands.
    fn reads_whole(&mut self, operands: &[&IdedExpr]) {
        if operands.iter().all(|operand| is_literal(&operand.expr)) {
            return;
        }
        let loops = self.scope.len();
        let reads_event = operands.iter().any(|operand| mentions_event(&operand.expr));
        self.turn(if reads_event { loops } else { loops.saturating_sub(1) }).whole_values += 1;
    }

    /// What is done for each turn of the loop that stands so deep; 0: once.
    fn turn(&mut self, depth: usize) -> &mut Turn {
        match depth.checked_sub(1).and_then(|above| self.scope.get(above)) {
            Some(around) => &mut self.cost.turns[around.number],
            None => &mut self.cost.once,
        }
    }

    fn comprehension(&mut self, of: &ComprehensionExpr, depth: usize) -> Result<(), FilterError> {
        if self.scope.len() == MAX_LOOPS {
            return Err(too_costly("its loops (all, exists, map, filter) stand more than two deep"));
        }
        if of.iter_var == "event" || of.iter_var2.as_deref() == Some("event") {
            return Err(syntax("a loop's variable is called `event`, which is taken"));
        }
        let number = self.cost.turns.len();
        self.cost.turns.push(Turn::default());
        // Each turn gets a copy of its element.
        self.reads_whole(&[&of.iter_range]);
        self.visit(&of.iter_range.expr, depth)?;
        self.visit(&of.accu_init.expr, depth)?;
        self.scope.push(Loop {
            first: of.iter_var.clone(),
            second: of.iter_var2.clone(),
            accumulator: of.accu_var.clone(),
            number,
        });
        let looped = gives_part_of_element(&of.loop_step.expr, of)
            .and_then(|()| self.visit(&of.loop_cond.expr, depth))
            .and_then(|()| self.visit(&of.loop_step.expr, depth))
            .and_then(|()| self.visit(&of.result.expr, depth));
        self.scope.pop();
        looped
    }
}

/// A `map` or `filter` appends to its accumulator: only a part of the element.
fn gives_part_of_element(step: &Expr, of: &ComprehensionExpr) -> Result<(), FilterError> {
    let Expr::Call(call) = step else { return Ok(()) };
    if call.func_name == operators::CONDITIONAL {
        return call.args.iter().skip(1).try_for_each(|arm| gives_part_of_element(&arm.expr, of));
    }
    let [first, second] = call.args.as_slice() else { return Ok(()) };
    let (Expr::Ident(name), Expr::List(list)) = (&first.expr, &second.expr) else { return Ok(()) };
    if *name != of.accu_var || list.elements.iter().all(|element| is_part_of(&element.expr, &of.iter_var)) {
        return Ok(());
    }
    Err(too_costly("`map` may give a part of its element only, as in `event.roles.map(r, r.name)`"))
}

fn is_part_of(expr: &Expr, variable: &str) -> bool {
    match expr {
        Expr::Ident(name) => name == variable,
        Expr::Select(select) => is_part_of(&select.operand.expr, variable),
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            is_part_of(&call.args[0].expr, variable) && is_literal(&call.args[1].expr)
        }
        _ => false,
    }
}

/// A scalar that stands in the text, or a list of such.
fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) => true,
        Expr::List(list) => list.elements.iter().all(|element| is_literal(&element.expr)),
        _ => false,
    }
}

fn mentions_event(expr: &Expr) -> bool {
    match expr {
        Expr::Ident(name) => name == "event",
        Expr::Select(select) => mentions_event(&select.operand.expr),
        Expr::Literal(_) => false,
        Expr::List(list) => list.elements.iter().any(|element| mentions_event(&element.expr)),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).any(|operand| mentions_event(&operand.expr))
        }
        // Rare as an operand: taken as the dearer one.
        Expr::Comprehension(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => true,
    }
}

fn pattern(operand: Option<&IdedExpr>) -> Result<Pattern, FilterError> {
    let Some(Expr::Literal(LiteralValue::String(text))) = operand.map(|operand| &operand.expr) else {
        return Err(too_costly("the pattern of `matches` is not written out; write it as a text in quotes"));
    };
    for (bytes, weight) in PATTERN_SIZES {
        let mut builder = regex::RegexBuilder::new(text.inner());
        match builder.size_limit(bytes).dfa_size_limit(PATTERN_CACHE).build() {
            Ok(regex) => return Ok(Pattern::new(regex, weight)),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => return Err(syntax("a pattern of `matches` is no regular expression (RE2's syntax)")),
        }
    }
    Err(too_costly("a pattern of `matches` is too large; repeat less"))
}

/// An evaluation used up its budget.
pub(super) fn exhausted() -> FilterError {
    too_costly(
        "the event is too large for its loops, comparisons and patterns; nest fewer, or filter in the receiver",
    )
}

fn too_costly(message: &str) -> FilterError {
    FilterError::TooCostly { message: message.to_owned() }
}

fn syntax(message: &str) -> FilterError {
    FilterError::Syntax { message: message.to_owned() }
}
