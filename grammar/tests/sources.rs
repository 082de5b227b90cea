//! Grammars: what their masks allow, what is refused, and what hostile ones can do.
#![expect(clippy::print_stdout, reason = "a test says how long each took")]

mod vocabulary;

use grammar::{Compiler, Fault, Limits, Refusal, Settings, Source};
use serde_json::json;
use std::time::{Duration, Instant};
use vocabulary::{CALL, END, bytes, compiler, longest, mask, takes, tokens};

fn schema(schema: serde_json::Value) -> Source {
    Source::Schema(schema.to_string())
}

#[test]
fn each_kind_of_source_takes_what_it_says_and_nothing_else() {
    let compiler = compiler();
    let person = schema(json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 3}, "age": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": false,
    }));
    let lark = "start: \"(\" inner* \")\"\ninner: start | /[a-c]/";
    let cases: [(Source, &[&str], &[&str]); 5] = [
        (
            person,
            &[r#"{"name":"Ada"}"#, r#"{"name": "Al", "age": 36}"#],
            &[r#"{"name":"Adas"}"#, r#"{"age":3}"#, r#"{"name":"A","x":1}"#, r#"{"name":"A""#],
        ),
        (Source::Object, &["{}", r#"{"a":[1,null]}"#], &["[]", "1", r#"{"a"}"#]),
        (Source::Expression("[0-9]{2,3}(ms|s)".into()), &["12s", "123ms"], &["1s", "12", "12sx"]),
        (Source::Choice(vec!["yes".into(), "no \"x\"".into()]), &["yes", "no \"x\""], &["no", ""]),
        (Source::Lark(lark.into()), &["()", "(a(b)())"], &["(", "(d)", "())"]),
    ];
    for (source, good, bad) in cases {
        for (texts, expected) in [(good, true), (bad, false)] {
            for text in texts {
                for tokens in [bytes(text), longest(text)] {
                    let taken = takes(&compiler, &source, &tokens);
                    assert_eq!(taken, expected, "{text} as {tokens:?} of {source:?}");
                }
            }
        }
    }
}

#[test]
fn a_mask_has_every_way_to_cut_a_text_into_tokens() {
    let mut matcher = compiler().compile(&Source::Choice(vec!["yes".into()])).expect("good");
    // Nothing is forced where the model may choose how to write it.
    assert_eq!(mask(matcher.as_mut()), [u32::from(b'y'), 260]);
    matcher.accept(260).expect("allowed");
    assert_eq!(mask(matcher.as_mut()), [END]);
}

#[test]
fn a_special_token_comes_where_it_is_asked_for_by_name_alone() {
    let compiler = compiler();
    let source = Source::Lark("start: <|call|> /[a-z]+/".into());
    let mut matcher = compiler.compile(&source).expect("good");
    assert_eq!(mask(matcher.as_mut()), [CALL]);
    let any = Source::Expression("(?s:.*)".into());
    assert!(!mask(compiler.compile(&any).expect("good").as_mut()).contains(&CALL));
}

#[test]
fn a_token_that_may_not_come_changes_nothing_and_tokens_are_taken_back() {
    let mut matcher = compiler().compile(&Source::Expression("a(bc|d)".into())).expect("good");
    let first = mask(matcher.as_mut());
    let [a, b, c, d] = [b'a', b'b', b'c', b'd'].map(u32::from);
    assert_eq!(matcher.accept(d), Err(Fault::NotAllowed(d)));
    assert_eq!(mask(matcher.as_mut()), first);
    assert_eq!(matcher.allowed(&[a, b, d]), Ok(2));
    for token in [a, b, c] {
        matcher.accept(token).expect("allowed");
    }
    let mut other = matcher.fork();
    matcher.take_back(2).expect("there are three");
    assert_eq!(mask(matcher.as_mut()), [b, d]);
    assert_eq!((mask(other.as_mut()), other.may_end()), (vec![END], Ok(true)));
    matcher.take_back(1).expect("there is one");
    assert_eq!(mask(matcher.as_mut()), first);
}

#[test]
fn what_was_compiled_is_kept_within_its_bytes() {
    let settings = Settings { kept_bytes: 1 << 20, ..Settings::default() };
    let compiler = Compiler::new(&tokens(), settings);
    for length in 1..40 {
        let source = Source::Expression(format!("a{{{length}}}"));
        compiler.compile(&source).expect("good");
        let (count, bytes) = compiler.kept();
        assert!(count >= 1 && bytes <= 1 << 20, "{count} take {bytes}");
    }
    assert!(compiler.kept().0 < 39, "some had to go");
}

/// A source that is refused, or compiled, and how long that took.
fn hostile(compiler: &Compiler, name: &str, source: Source) {
    let start = Instant::now();
    let outcome = compiler.compile(&source);
    let took = start.elapsed();
    let said = outcome.as_ref().map(|_| "compiled".to_owned());
    println!("{name}: {took:?}: {:.150}", said.unwrap_or_else(|refusal| refusal.to_string()));
    assert!(took < Duration::from_secs(6), "{name} took {took:?}");
    if let Ok(mut matcher) = outcome {
        for step in 0..40 {
            let start = Instant::now();
            let mut words = vec![0; tokens().mask_words()];
            if let Err(fault) = matcher.mask(&mut words) {
                println!("{name}: step {step}: {fault}");
                break;
            }
            let first = (0..END).find(|t| words[(t / 32) as usize] >> (t % 32) & 1 == 1);
            let Some(token) = first else { break };
            if let Err(fault) = matcher.accept(token) {
                assert!(matches!(fault, Fault::TooMuch(_)), "{name}: {fault}");
                println!("{name}: step {step}: {fault}");
                break;
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "{name}: step {step} took {took:?}");
        }
    }
}

#[test]
fn hostile_sources_are_refused_or_compiled_in_bounded_time() {
    let compiler = compiler();
    let chain = |count: usize| {
        let next = |at: usize| match at + 1 < count {
            true => json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", at + 1)}}),
            false => json!({"type": "null"}),
        };
        let defs: serde_json::Map<_, _> =
            (0..count).map(|at| (format!("d{at}"), next(at))).collect();
        schema(json!({"$ref": "#/$defs/d0", "$defs": defs}))
    };
    for count in [100, 1000, 2000, 10_000, 100_000] {
        hostile(&compiler, &format!("{count} references"), chain(count));
    }
    for depth in [30, 60, 100, 10_000] {
        let open = "{\"items\":".repeat(depth);
        let text = format!("{open}{{}}{}", "}".repeat(depth));
        hostile(&compiler, &format!("{depth} levels"), Source::Schema(text));
    }
    for count in [100, 1000, 4000, 20_000] {
        let some: serde_json::Map<_, _> =
            (0..count).map(|at| (format!("p{at}"), json!({"type": "integer"}))).collect();
        let name = format!("{count} optional properties");
        hostile(&compiler, &name, schema(json!({"type": "object", "properties": some})));
    }
    for count in [1000, 20_000, 100_000] {
        let values: Vec<String> = (0..count).map(|at| format!("value {at}")).collect();
        hostile(&compiler, &format!("{count} values"), schema(json!({"enum": values})));
        hostile(&compiler, &format!("{count} choices"), Source::Choice(values));
    }
    for (name, expression) in [
        ("nested repetitions", "((a{1,900}){1,900}){1,900}".to_owned()),
        ("repetitions", "((a{1,40}){1,40}){1,40}".to_owned()),
        ("alternatives", "((a|ab|abc){100}){100}".to_owned()),
        ("states", "(a|b)*a(a|b){18}x".to_owned()),
        ("many states", "(a|b)*a(a|b){2000}x".to_owned()),
        ("brackets", "(".repeat(1 << 20)),
        ("pairs of brackets", format!("{}{}", "(".repeat(1 << 19), ")".repeat(1 << 19))),
    ] {
        hostile(&compiler, name, Source::Expression(expression));
    }
    for (name, grammar) in [
        ("ambiguous", "start: s\ns: s s | s s s | \"a\"".to_owned()),
        ("empty loops", "start: s*\ns: \"\" | s s".to_owned()),
        ("brackets in rules", format!("start: {}", "(".repeat(1 << 19))),
        ("long strings", "start: STR\nSTR: /a{1,1000}/ /b{1,1000}/ /c{1,1000}/".to_owned()),
    ] {
        hostile(&compiler, name, Source::Lark(grammar));
    }
    for rules in [100, 2000, 6000] {
        let mut grammar = "start: r0\n".to_owned();
        for at in 0..rules {
            grammar += &format!("r{at}: \"a\" r{}\n", at + 1);
        }
        grammar += &format!("r{rules}: \"b\"\n");
        hostile(&compiler, &format!("{rules} rules"), Source::Lark(grammar));
    }
    for (name, bounds) in [
        ("long strings", json!({"type": "string", "minLength": 1, "maxLength": 1_000_000})),
        ("longest strings", json!({"type": "string", "maxLength": u64::MAX})),
        ("long lists", json!({"type": "array", "minItems": 1, "maxItems": 1_000_000})),
        ("multiples", json!({"type": "integer", "multipleOf": 9973})),
        ("huge bounds", json!({"type": "number", "minimum": -1e300, "maximum": 1e300})),
    ] {
        hostile(&compiler, name, schema(bounds));
    }
}

#[test]
fn the_page_of_json_schema_has_the_keywords_that_are_honoured() {
    let page = include_str!("../../docs/json-schema.md");
    let row = |head: &str| {
        let row = page.lines().find(|line| line.starts_with(head)).expect("the page has the row");
        row.split('`').skip(1).step_by(2).collect::<Vec<_>>()
    };
    let (honoured, refused) = grammar::schema_keywords();
    assert_eq!(row("| honoured |"), honoured);
    assert_eq!(row("| refused by name |"), refused);
}

#[test]
fn refusals_say_what_and_where() {
    let compiler = compiler();
    let refused = |source: Source| compiler.compile(&source).err().expect("refused");
    let overlapping = schema(json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}));
    let keyword = "oneOf of schemas that may hold together".to_owned();
    assert_eq!(refused(overlapping), Refusal::Unsupported { at: String::new(), keyword });
    let text = refused(schema(json!({"type": "string", "format": "nonsense"}))).to_string();
    assert!(text.contains("format \"nonsense\""), "{text}");
    for source in [
        Source::Schema("{".into()),
        Source::Schema("7".into()),
        Source::Expression("(".into()),
        Source::Lark("start: missing".into()),
        Source::Choice(Vec::new()),
        schema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
    ] {
        let refusal = refused(source.clone());
        assert!(matches!(refusal, Refusal::Invalid { .. }), "{source:?}: {refusal:?}");
    }
    let limits = Limits { bytes: 10, ..Limits::default() };
    let small = Compiler::new(&tokens(), Settings { limits, ..Settings::default() });
    let long = small.compile(&Source::Expression("a".repeat(11))).err();
    assert_eq!(long, Some(Refusal::TooMuch { what: "bytes", got: 11, most: 10 }));
}
