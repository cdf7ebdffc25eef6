use proptest::prelude::*;

use super::*;

fn accepts(expression: &str, body: &str) -> Result<bool, FilterError> {
    Filter::compile(expression)?.accepts(body.as_bytes())
}

#[test]
fn an_event_is_judged_by_its_body() {
    let body = r#"{"event":"User.Created","data":{"id":"u1","roles":[{"name":"admin"},{"name":"staff"}],"n":3,"ok":true,"x":null}}"#;
    for (expression, expected) in [
        ("event.event == 'User.Created'", true),
        ("event.data.id.startsWith('u') && event.data.n > 2", true),
        ("event.data.n == 4", false),
        ("event.data.ok", true),
        ("event.data.x == null", true),
        ("has(event.data.id) && !has(event.data.nothing)", true),
        ("'id' in event.data", true),
        ("event.data.roles.exists(r, r.name == 'admin')", true),
        ("event.data.roles.all(r, r.name == 'admin')", false),
        ("size(event.data.roles) == 2", true),
        ("event.data.id.matches('^u[0-9]+$')", true),
        ("event.data.id in ['u1', 'u2']", true),
    ] {
        assert_eq!(accepts(expression, body), Ok(expected), "{expression}");
    }
}

#[test]
fn a_missing_key_is_an_error_that_shows_nothing_of_the_body() {
    let error = accepts("event.data.name == 'x'", r#"{"data":{"secret":"hush"}}"#).unwrap_err();
    assert!(matches!(error, FilterError::Evaluation { .. }), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn what_is_no_filter_is_refused_when_it_is_compiled() {
    for expression in [
        "event.(",
        "",
        "user.id == 'x'",
        "event.id == request.id",
        "nothing(event)",
        "event.x.unknown()",
        "[event].map(event, event)",
    ] {
        let error = Filter::compile(expression).unwrap_err();
        assert!(matches!(error, FilterError::Syntax { .. }), "{expression}: {error}");
    }
    let long = format!("event.x == '{}'", "y".repeat(MAX_FILTER_BYTES));
    assert!(matches!(Filter::compile(&long), Err(FilterError::TooLong { .. })));
}

#[test]
fn what_gives_no_boolean_is_told_so() {
    for expression in ["event.n", "event", "'text'", "1 + 1"] {
        let refused = accepts(expression, r#"{"n":1}"#).unwrap_err();
        assert!(matches!(refused, FilterError::NotBool { .. }), "{expression}: {refused}");
    }
}

#[test]
fn what_could_run_for_long_is_refused() {
    for expression in [
        "event.a.all(x, event.a.all(y, event.a.all(z, x == y && y == z)))",
        "event.text.matches(event.pattern)",
        "event.text.matches('(a{1000}){1000}')",
        "event.a.map(x, event.a).size() > 0",
    ] {
        let error = Filter::compile(expression).unwrap_err();
        assert!(matches!(error, FilterError::TooCostly { .. }), "{expression}: {error}");
    }
}

#[test]
fn the_largest_body_is_judged_or_refused_and_never_hangs() {
    let wide = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(90_000));
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"a":"{}"}}"#, "a".repeat(8 << 20));
    let began = std::time::Instant::now();
    for expression in [
        "event.a.all(x, event.a.all(y, x == y))",
        "event.a.exists(x, event.a == [x])",
        "event.a == event.a",
        "event.a.all(x, x == 1)",
        "event.a.matches('(a|aa)+$')",
        "event.a.all(x, event.a.exists(y, y > x))",
    ] {
        let filter = Filter::compile(expression).unwrap();
        for body in [&wide, &deep, &text] {
            let judged = filter.accepts(body.as_bytes());
            let bounded = matches!(
                judged,
                Ok(_)
                    | Err(FilterError::TooCostly { .. }
                        | FilterError::Body { .. }
                        | FilterError::Evaluation { .. }
                        | FilterError::NotBool { .. })
            );
            assert!(bounded, "{expression}: {judged:?}");
        }
    }
    // Eighteen judgements; without a bound the nested loops alone would take hours.
    assert!(began.elapsed() < std::time::Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn a_body_that_is_no_json_is_told_so() {
    for body in ["", "{", "[1,]", "{} x", "\u{0}"] {
        assert!(matches!(accepts("event == 1", body), Err(FilterError::Body { .. })), "{body:?}");
    }
}

/// What the cost is counted in is about a nanosecond: an evaluation that is let run ends soon, in whatever
/// way its loops and patterns multiply. (Without a budget while it runs these take from seconds to days.)
#[test]
fn nested_loops_and_patterns_end_with_their_budget() {
    let list = format!(
        r#"{{"a":[{}"x"]}}"#,
        r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#.repeat(3000)
    );
    for expression in [
        "event.a.all(x, event.a.all(y, x.matches('^(a|b|ab)*$') || y.matches('(a|aa)+c')))",
        "event.a.exists(x, x.matches('(a*)*(a*)*(a*)*b'))",
        "event.a.exists(x, event.a.exists(y, x + y == 'b')) || event.a.exists(x, event.a.exists(y, y == 'b'))",
        "event.a.map(x, x).filter(x, event.a.exists(y, y != x && y.contains('b'))).size() > 0",
    ] {
        let judged = accepts(expression, &list);
        assert!(matches!(judged, Err(FilterError::TooCostly { .. })), "{expression}: {judged:?}");
    }
}

#[test]
fn a_loop_over_few_elements_is_no_dearer_for_a_wide_body() {
    let keys = (0..300).map(|at| format!(r#""k{at}":{at}"#)).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{{keys},"roles":[{{"p":["r","w"]}},{{"p":["x"]}}]}}"#);
    let nested = "event.roles.exists(r, r.p.exists(p, p.matches('^x$') && event.k7 == 7))";
    assert_eq!(accepts(nested, &body), Ok(true));
}

#[test]
fn a_pattern_is_found_in_every_way_of_writing_it() {
    for expression in
        ["event.a.matches('^b+$')", "matches(event.a, '^b+$')", "[event.a].exists(x, x.matches('b'))"]
    {
        assert_eq!(accepts(expression, r#"{"a":"bb"}"#), Ok(true), "{expression}");
        assert_eq!(accepts(expression, r#"{"a":"cc"}"#), Ok(false), "{expression}");
        let refused = accepts(expression, r#"{"a":1}"#);
        assert!(matches!(refused, Err(FilterError::Evaluation { .. })), "{expression}: {refused:?}");
    }
    let two = "event.a.matches('^b') && !event.a.matches('c$')";
    assert_eq!((accepts(two, r#"{"a":"bd"}"#), accepts(two, r#"{"a":"bc"}"#)), (Ok(true), Ok(false)));
}

proptest! {
    #[test]
    fn no_expression_panics(expression in "[a-z0-9 .()'\\[\\],&|!=<>+*/?:{}-]{0,60}") {
        if let Ok(filter) = Filter::compile(&expression) {
            let _ = filter.accepts(br#"{"a":[1,{"b":"c"}]}"#);
        }
    }

    #[test]
    fn no_expression_over_the_event_panics(tail in "[a-z.()'\\[\\]0-9&|!=]{0,40}", body in "\\PC{0,60}") {
        if let Ok(filter) = Filter::compile(&format!("event.{tail}")) {
            let _ = filter.accepts(body.as_bytes());
        }
    }
}
