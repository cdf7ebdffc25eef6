//! Counts what an evaluation costs while it runs, and ends it where that is too much.
//!
//! In: a checked expression, and what one turn of each of its loops costs. Out: the same expression, with two
//! calls that nobody can write: each loop asks for its next turn, and `matches` names a pattern that was
//! compiled once. Both take from the evaluation's budget, and fail when nothing is left; so does every turn
//! after that, whatever an `||` around it makes of the error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, ExecutionError};
use regex::Regex;

use super::check::{Cost, Turn};

/// What is asked for before each turn of a loop.
const TURN: &str = "@turn";
/// `matches` with a compiled pattern.
const MATCHES: &str = "@matches";

/// The units of a call of `matches`, whatever its text.
const MATCH_UNITS: u64 = 500;

/// A pattern, compiled.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// Units for each byte that it looks at.
    weight: u64,
}

/// An expression that counts what it costs.
#[derive(Debug)]
pub(super) struct Metered {
    pub(super) expression: IdedExpr,
    patterns: Arc<[Pattern]>,
    turns: Vec<Turn>,
}

/// What is left of one evaluation's budget.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<AtomicU64>);

// === impl Pattern ===

impl Pattern {
    /// A compiled pattern that costs so much for each byte.
    pub(super) fn new(regex: Regex, weight: u64) -> Self {
        Self { regex, weight }
    }
}

// === impl Metered ===

impl Metered {
    /// Puts the calls in. Loops and patterns are numbered in the order in which the check visits them.
    pub(super) fn new(mut expression: IdedExpr, cost: &mut Cost) -> Self {
        let mut numbers = Numbers::default();
        numbers.put_in(&mut expression.expr);
        let (patterns, turns) = (std::mem::take(&mut cost.patterns), std::mem::take(&mut cost.turns));
        Self { expression, patterns: patterns.into(), turns }
    }

    /// Lets a context count, over values of so many bytes.
    pub(super) fn count(&self, context: &mut Context<'_, '_>, meter: &Meter, bytes: u64) {
        let costs: Vec<_> = self.turns.iter().map(|turn| turn.units(bytes)).collect();
        let (of_turns, of_patterns, patterns) = (meter.clone(), meter.clone(), Arc::clone(&self.patterns));
        let turn = move |at: i64| {
            let units = usize::try_from(at).ok().and_then(|at| costs.get(at)).copied();
            of_turns.take(units.unwrap_or(u64::MAX)).map(|()| true)
        };
        let matches = move |text: Arc<String>, at: i64| {
            let Some(pattern) = usize::try_from(at).ok().and_then(|at| patterns.get(at)) else {
                return Err(ExecutionError::function_error(MATCHES, "there is no such pattern"));
            };
            let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
            of_patterns.take(bytes.saturating_mul(pattern.weight).saturating_add(MATCH_UNITS))?;
            Ok(pattern.regex.is_match(&text))
        };
        // Neither name can be declared by anyone else.
        let _ = context.add_function(TURN, turn);
        let _ = context.add_function(MATCHES, matches);
    }
}

// === impl Meter ===

impl Meter {
    /// So much may be used.
    pub(super) fn new(units: u64) -> Self {
        Self(Arc::new(AtomicU64::new(units)))
    }

    /// Whether something was refused for want of units.
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, units: u64) -> Result<(), ExecutionError> {
        // An evaluation runs on one thread.
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(units), Ordering::Relaxed);
        if left > units {
            return Ok(());
        }
        Err(ExecutionError::function_error(TURN, "it costs too much"))
    }
}

/// How many loops and patterns were met.
#[derive(Default)]
struct Numbers {
    loops: i64,
    patterns: i64,
}

// === impl Numbers ===

impl Numbers {
    fn put_in(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Call(call) => self.meter_call(call),
            Expr::Comprehension(comprehension) => self.meter_loop(comprehension),
            Expr::Select(select) => self.put_in(&mut select.operand.expr),
            Expr::List(list) => list.elements.iter_mut().for_each(|element| self.put_in(&mut element.expr)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.put_in(&mut entry.key.expr);
                        self.put_in(&mut entry.value.expr);
                    }
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
    }

    fn meter_call(&mut self, call: &mut CallExpr) {
        let number = self.patterns;
        let is_match = call.func_name == "matches";
        self.patterns += i64::from(is_match);
        call.target.iter_mut().for_each(|target| self.put_in(&mut target.expr));
        call.args.iter_mut().for_each(|argument| self.put_in(&mut argument.expr));
        if is_match {
            MATCHES.clone_into(&mut call.func_name);
            // `text.matches(pattern)` and `matches(text, pattern)` both become `@matches(text, number)`.
            if let Some(target) = call.target.take() {
                call.args.insert(0, *target);
            }
            if let Some(pattern) = call.args.last_mut() {
                *pattern = integer(number);
            }
        }
    }

    fn meter_loop(&mut self, of: &mut ComprehensionExpr) {
        let number = self.loops;
        self.loops += 1;
        for part in
            [&mut of.iter_range, &mut of.accu_init, &mut of.loop_cond, &mut of.loop_step, &mut of.result]
        {
            self.put_in(&mut part.expr);
        }
        let asks = call(TURN, vec![integer(number)]);
        let goes_on = std::mem::take(&mut of.loop_cond);
        let ends = ided(Expr::Literal(LiteralValue::Boolean(false.into())));
        of.loop_cond = call(operators::CONDITIONAL, vec![asks, goes_on, ends]);
    }
}

fn ided(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn integer(number: i64) -> IdedExpr {
    ided(Expr::Literal(LiteralValue::Int(number.into())))
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    ided(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}
