//! A Webhook's filter: a CEL expression over `event`, compiled once, bounded in cost.
//!
//! ```text
//! text -> parse -> check (names, loops, patterns) -> Filter; body -> values -> evaluate, metered -> bool
//! ```
//!
//! In: an expression of at most [`MAX_FILTER_BYTES`], later bodies. Out: whether an event is wanted.
//! A key that the body lacks is an error ([`FilterError::Evaluation`]), as CEL has it; `has(event.data.name)`
//! asks first. Whether an event is wanted whose filter fails is the caller's to say.
//!
//! It must never panic, never run for longer than its budget, about a millisecond, and never tell what the
//! body holds.

mod body;
mod check;
mod meter;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::{Context, Env, ExecutionError, Value};

use check::Cost;
use meter::{Meter, Metered};

/// The most bytes of an expression.
pub const MAX_FILTER_BYTES: usize = 1024;

/// Parsing recurses; it gets a stack of its own, in bytes.
const PARSER_STACK_BYTES: usize = 16 << 20;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled filter.
///
/// ```
/// # use tidings_plan::{Filter, FilterError};
/// let filter = Filter::compile("event.data.primaryEmail.endsWith('@example.com')")?;
/// assert!(filter.accepts(br#"{"data":{"primaryEmail":"ada@example.com"}}"#)?);
/// assert!(!filter.accepts(br#"{"data":{"primaryEmail":"ada@example.org"}}"#)?);
/// assert!(filter.accepts(b"{}").is_err());
/// # Ok::<(), FilterError>(())
/// ```
pub struct Filter {
    text: String,
    metered: Metered,
    cost: Cost,
}

/// Why a filter is refused, or cannot judge an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not CEL, or a name that is not known.
    #[error("the filter is no CEL expression over `event`: {message}")]
    Syntax {
        /// What is wrong, with line and column where the parser tells them.
        message: String,
    },
    /// More than [`MAX_FILTER_BYTES`].
    #[error(
        "the filter has {bytes} bytes, the most is {MAX_FILTER_BYTES}: select by `events` first, or filter in the receiver"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It could run for too long: at compile time for every event, later for this one.
    #[error("the filter could cost too much: {message}")]
    TooCostly {
        /// What costs, and what to write.
        message: String,
    },
    /// It gave something else than true or false.
    #[error("the filter gives {found}, not true or false: compare it, as in `event.name == \"x\"`")]
    NotBool {
        /// The type that it gave.
        found: String,
    },
    /// The event's body is not JSON, or has too many values to look at.
    #[error("the event cannot be filtered: {message}")]
    Body {
        /// What is wrong with it.
        message: String,
    },
    /// The expression fails for this event: a key is missing, or types do not fit.
    #[error("the filter fails for this event: {message}")]
    Evaluation {
        /// What failed; nothing of the body.
        message: String,
    },
}

// === impl FilterError ===

impl FilterError {
    /// What is wrong, in one word: `TooCostly`, `NotBool`, `Body`, `Evaluation`. Nothing of a body.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "Syntax",
            Self::TooLong { .. } => "TooLong",
            Self::TooCostly { .. } => "TooCostly",
            Self::NotBool { .. } => "NotBool",
            Self::Body { .. } => "Body",
            Self::Evaluation { .. } => "Evaluation",
        }
    }
}

// === impl Filter ===

impl Filter {
    /// Compiles and checks an expression.
    pub fn compile(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong { bytes: text.len() });
        }
        let expression = parse(text)?;
        let mut cost = check::check(&expression)?;
        Ok(Self { text: text.to_owned(), metered: Metered::new(expression, &mut cost), cost })
    }

    /// Whether an event with this body is wanted.
    pub fn accepts(&self, body: &[u8]) -> Result<bool, FilterError> {
        let event = body::read(body)?;
        let largest = self.cost.largest_value(body.len());
        let meter = Meter::new(self.cost.left(largest)?);
        let evaluate = || {
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.add_variable_from_value("event", event);
            self.metered.count(&mut context, &meter, largest);
            Value::resolve(&self.metered.expression, &context)
        };
        match catch_unwind(AssertUnwindSafe(evaluate)) {
            Ok(Ok(Value::Bool(wanted))) => Ok(wanted),
            Ok(Ok(other)) => Err(FilterError::NotBool { found: other.type_of().to_string() }),
            Ok(Err(_)) if meter.is_exhausted() => Err(check::exhausted()),
            Ok(Err(error)) => Err(FilterError::Evaluation { message: self.without_payload(&error) }),
            Err(_) => Err(FilterError::Evaluation { message: "a value is out of range".to_owned() }),
        }
    }

    /// The expression's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Says what failed. The library's own text would quote values of the event; a key is named only
    /// when it stands in the expression.
    fn without_payload(&self, error: &ExecutionError) -> String {
        let text = match error {
            ExecutionError::NoSuchKey(key) if self.text.contains(key.as_str()) => {
                return format!("the event has no key {key:?}; ask with has(…) first");
            }
            ExecutionError::NoSuchKey(_) => "the event has no such key; ask with has(…) first",
            ExecutionError::IndexOutOfBounds(_) => "an index lies outside of its list",
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "a number is divided by zero"
            }
            ExecutionError::NoSuchOverload { .. } | ExecutionError::UnexpectedType { .. } => {
                "an operator or function met a value of a type that it does not take"
            }
            ExecutionError::Overflow(..) => "a number is out of range",
            _ => "a value does not fit the operator or function that it is given to",
        };
        text.to_owned()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

fn parse(text: &str) -> Result<IdedExpr, FilterError> {
    let refused = |message: &str| FilterError::Syntax { message: message.to_owned() };
    let parsed = std::thread::scope(|scope| {
        let work = || ENV.parser().max_recursion_depth(48).parse(text).map_err(|errors| first_line(&errors));
        std::thread::Builder::new()
            .name("filter-parser".to_owned())
            .stack_size(PARSER_STACK_BYTES)
            .spawn_scoped(scope, work)
            .map(std::thread::ScopedJoinHandle::join)
    });
    match parsed {
        Ok(Ok(Ok(expression))) => Ok(expression),
        Ok(Ok(Err(message))) => Err(refused(&message)),
        Ok(Err(_)) => Err(refused("the parser gave up on it")),
        Err(_) => Err(refused("there is no thread to parse it on; try again")),
    }
}

fn first_line(errors: &cel::ParseErrors) -> String {
    errors.errors.first().map_or_else(
        || "it does not parse".to_owned(),
        |error| format!("line {}, column {}: {}", error.pos.0, error.pos.1, error.msg),
    )
}

#[cfg(test)]
mod tests;
