//! Sources that mean harm: each is refused by name, or becomes a matcher that works; each in
//! bounded time, and all at once.
#![expect(clippy::print_stdout, reason = "a test says how long each took")]

#[path = "vocabulary/formats.rs"]
mod formats;
mod vocabulary;

use formats::{any_text, constant, number, tag, tags};
use grammar::{Compiler, Fault, Refusal, Source};
use serde_json::{Map, Value, json};
use std::thread;
use std::time::{Duration, Instant};
use vocabulary::{END, bytes, compiler, longest, mask, takes, tokens};

/// For one source, on a slow machine that does other things too: what has no bound takes longer.
const LONG: Duration = Duration::from_secs(120);

/// Whether a source is compiled; it is refused, or its matcher goes on for a while.
fn compiles(compiler: &Compiler, name: &str, source: &Source) -> bool {
    let start = Instant::now();
    let outcome = compiler.compile(source);
    let took = start.elapsed();
    let mut matcher = match outcome {
        Ok(matcher) => matcher,
        Err(refusal) => {
            let said = refusal.to_string();
            println!("{name}: {took:?}: {said:.150}");
            assert!(said.len() < 400, "{name}: it repeats what was sent");
            assert!(!matches!(refusal, Refusal::TooSlow | Refusal::Busy), "{name}: {refusal}");
            return false;
        }
    };
    for step in 0..40 {
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
    }
    println!("{name}: {took:?}, and {:?} for what comes", start.elapsed() - took);
    true
}

fn schema(schema: &Value) -> Source {
    Source::Schema(schema.to_string())
}

/// Schemas that refer to each other, one after the other.
fn chain(count: usize) -> Source {
    let next = |at: usize| match at + 1 < count {
        true => json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", at + 1)}}),
        false => json!({"type": "null"}),
    };
    let defs: Map<_, _> = (0..count).map(|at| (format!("d{at}"), next(at))).collect();
    schema(&json!({"$ref": "#/$defs/d0", "$defs": defs}))
}

/// The same that only refer.
fn bare_chain(count: usize) -> Source {
    let next = |at: usize| json!({"$ref": format!("#/$defs/d{}", at + 1)});
    let mut defs: Map<_, _> = (0..count).map(|at| (format!("d{at}"), next(at))).collect();
    defs.insert(format!("d{count}"), json!({"type": "null"}));
    schema(&json!({"$ref": "#/$defs/d0", "$defs": defs}))
}

fn references() -> Vec<(String, Source)> {
    let mut all = Vec::new();
    for count in [100, 1000, 1990, 10_000, 100_000] {
        all.push((format!("{count} references"), chain(count)));
        all.push((format!("{count} bare references"), bare_chain(count)));
    }
    let itself = json!({"$ref": "#"});
    let circle = json!({"$ref": "#/$defs/a", "$defs": {
        "a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"},
    }});
    let combined = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]});
    let missing = json!({"$ref": "#/$defs/none"});
    let tree = json!({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}});
    for (name, value) in [
        ("itself", itself),
        ("a circle", circle),
        ("itself twice", combined),
        ("nothing there", missing),
        ("a tree", tree),
    ] {
        all.push((name.to_owned(), schema(&value)));
    }
    all
}

fn levels() -> Vec<(String, Source)> {
    let mut all = Vec::new();
    for depth in [10, 30, 60, 100, 1000, 10_000, 100_000] {
        for (what, open, close) in [
            ("lists", "{\"items\":", "}"),
            ("objects", "{\"properties\":{\"a\":", "}}"),
            ("all", "{\"allOf\":[", "]}"),
            ("any", "{\"anyOf\":[{\"type\":\"null\"},", "]}"),
        ] {
            let text = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
            all.push((format!("{depth} levels of {what}"), Source::Schema(text)));
        }
        let rule = format!("start: {}\"a\"{}", "(".repeat(depth), ")".repeat(depth));
        all.push((format!("{depth} brackets in a rule"), Source::Lark(rule)));
        let groups = format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        all.push((format!("{depth} groups"), Source::Expression(groups)));
    }
    all
}

fn counts() -> Vec<(String, Source)> {
    let mut all = Vec::new();
    for count in [100, 1000, 4000, 20_000] {
        let some: Map<_, _> =
            (0..count).map(|at| (format!("p{at}"), json!({"type": "integer"}))).collect();
        let names: Vec<&String> = some.keys().collect();
        let (optional, required) = (
            json!({"type": "object", "properties": some}),
            json!({"type": "object", "properties": some, "required": names}),
        );
        all.push((format!("{count} properties that may be left out"), schema(&optional)));
        all.push((format!("{count} properties"), schema(&required)));
    }
    for count in [1000, 20_000, 100_000] {
        let values: Vec<String> = (0..count).map(|at| format!("value {at}")).collect();
        all.push((format!("{count} values"), schema(&json!({"enum": values}))));
        all.push((format!("{count} choices"), Source::Choice(values)));
    }
    for (name, value) in [
        ("long strings", json!({"type": "string", "minLength": 1, "maxLength": 1_000_000})),
        ("longest strings", json!({"type": "string", "maxLength": u64::MAX})),
        ("long lists", json!({"type": "array", "minItems": 1, "maxItems": 1_000_000})),
        (
            "lists in lists",
            json!({"type": "array", "minItems": 900, "items":
            {"type": "array", "minItems": 900, "items": {"type": "array", "minItems": 900}}}),
        ),
        ("multiples", json!({"type": "integer", "multipleOf": 9973})),
        ("huge bounds", json!({"type": "number", "minimum": -1e300, "maximum": 1e300})),
        ("a long pattern", json!({"type": "string", "pattern": "((a{1,90}){1,90}){1,9}"})),
    ] {
        all.push((name.to_owned(), schema(&value)));
    }
    all
}

fn expressions() -> Vec<(String, Source)> {
    let expressions = [
        ("nested repetitions", "((a{1,900}){1,900}){1,900}".to_owned()),
        ("repetitions", "((a{1,40}){1,40}){1,40}".to_owned()),
        ("alternatives", "((a|ab|abc){100}){100}".to_owned()),
        ("states", "(a|b)*a(a|b){18}x".to_owned()),
        ("many states", "(a|b)*a(a|b){2000}x".to_owned()),
        ("nothing, often", "(((a*)*)*)*b".to_owned()),
        ("classes", r"[\p{L}\p{N}]{1,500}[^\p{L}]{1,500}".to_owned()),
        ("brackets", "(".repeat(1 << 20)),
        ("pairs of brackets", format!("{}{}", "(".repeat(1 << 19), ")".repeat(1 << 19))),
        ("square brackets", "[".repeat(1 << 20)),
    ];
    expressions.map(|(name, text)| (name.to_owned(), Source::Expression(text))).into()
}

fn grammars() -> Vec<(String, Source)> {
    let grammars = [
        ("ambiguous", "start: s\ns: s s | s s s | \"a\"".to_owned()),
        ("ambiguous, and nothing", "start: s\ns: s s | s s s | \"a\" | \"\"".to_owned()),
        ("empty loops", "start: s*\ns: \"\" | s s".to_owned()),
        ("itself", "start: start".to_owned()),
        ("brackets in rules", format!("start: {}", "(".repeat((1 << 20) - 7))),
        ("pairs of brackets", format!("start: {}", "[]".repeat(1 << 19))),
        ("long words", "start: STR\nSTR: /a{1,1000}/ /b{1,1000}/ /c{1,1000}/".to_owned()),
        (
            "a schema within",
            format!("start: %json {}{{}}{}", "{\"items\":".repeat(60), "}".repeat(60)),
        ),
        ("deep schemas within", format!("start: %json {}", "{\"items\":".repeat(100_000))),
    ];
    let mut all: Vec<_> = grammars.map(|(name, text)| (name.to_owned(), Source::Lark(text))).into();
    for rules in [100, 1990, 6000, 100_000] {
        let mut grammar = "start: r0\n".to_owned();
        for at in 0..rules {
            grammar += &format!("r{at}: \"a\" r{}\n", at + 1);
        }
        grammar += &format!("r{rules}: \"b\"\n");
        all.push((format!("{rules} rules"), Source::Lark(grammar)));
    }
    all
}

fn corpus() -> Vec<(String, Source)> {
    [references(), levels(), counts(), expressions(), grammars()].concat()
}

#[test]
fn each_is_refused_or_works_in_bounded_time() {
    let compiler = compiler();
    for (name, source) in corpus() {
        let start = Instant::now();
        compiles(&compiler, &name, &source);
        let took = start.elapsed();
        assert!(took < LONG, "{name} took {took:?}");
    }
}

#[test]
fn all_at_once_they_leave_room_for_others() {
    let compiler = compiler();
    let good = Source::Expression("[0-9]+".into());
    thread::scope(|scope| {
        let verdicts: Vec<_> = (0..8)
            .map(|thread| {
                let compiler = &compiler;
                scope.spawn(move || {
                    let mut all = corpus();
                    let count = all.len();
                    // Each begins elsewhere.
                    all.rotate_left(thread * count / 8);
                    let verdict = |(name, source): &(String, Source)| {
                        (name.clone(), compiles(compiler, name, source))
                    };
                    let mut verdicts: Vec<_> = all.iter().map(verdict).collect();
                    verdicts.rotate_right(thread * count / 8);
                    verdicts
                })
            })
            .collect();
        for _ in 0..10 {
            assert!(takes(&compiler, &good, &bytes("12")));
            thread::sleep(Duration::from_millis(100));
        }
        let mut verdicts = verdicts.into_iter().map(|thread| thread.join().expect("no panic"));
        let first = verdicts.next().expect("there are eight");
        assert!(verdicts.all(|other| other == first));
    });
    // The compiler is as good as before.
    let mut matcher = compiler.compile(&Source::Object).expect("good");
    for token in longest("{\"yes\":true") {
        matcher.accept(token).expect("allowed");
    }
    assert!(mask(matcher.as_mut()).contains(&u32::from(b'}')));
}

#[test]
fn hostile_tags_are_refused_or_compiled() {
    let compiler = compiler();
    let many = |count: usize, begin: &dyn Fn(usize) -> String| {
        let tags: Vec<Value> = (0..count).map(|at| tag(&begin(at), number(), "</f>")).collect();
        json!({"type": "triggered_tags", "triggers": ["<f="], "tags": tags})
    };
    let nested = |depth: usize, name: &str| {
        (0..depth).fold(constant("a"), |inner, _| match name {
            "sequence" | "or" => json!({"type": name, "elements": [inner]}),
            "tag" => tag("<", inner, ">"),
            "triggered_tags" => json!({
                "type": name, "triggers": ["<"], "tags": [tag("<", inner, ">")],
            }),
            name => json!({"type": name, "content": inner, "min": 9, "max": 9}),
        })
    };
    let ends = |count: usize| {
        let ends: Vec<String> = (0..count).map(|at| format!("</f{at}>")).collect();
        let content = json!({"type": "or", "elements": vec![any_text(); count]});
        json!({"type": "tag", "begin": "", "content": content, "end": ends})
    };
    let mut cases = vec![
        ("1000 tags".to_owned(), many(1000, &|at| format!("<f=f{at}>")), true),
        ("30000 tags".to_owned(), many(30_000, &|at| format!("<f=f{at}>")), false),
        (
            "tags that begin each other".to_owned(),
            many(200, &|at| "<f=".to_owned() + &"a".repeat(at)),
            true,
        ),
        ("one name, many times".to_owned(), many(100, &|_| "<f=<|call|><|call|>".to_owned()), true),
        ("long marks".to_owned(), many(1, &|_| "<f=".to_owned() + &"<|call|>".repeat(1000)), false),
        ("many ends".to_owned(), ends(60), true),
        ("too many ends".to_owned(), ends(2000), false),
        ("a long text".to_owned(), constant(&"<".repeat(1 << 19)), true),
        ("many names".to_owned(), constant(&"<|call|>".repeat(1000)), true),
        ("too many names".to_owned(), constant(&"<|call|>".repeat(10_000)), false),
    ];
    for name in ["sequence", "or", "tag", "triggered_tags"] {
        cases.push((format!("30 levels of {name}"), nested(30, name), true));
        cases.push((format!("70 levels of {name}"), nested(70, name), false));
    }
    cases.push(("repeated repeats".to_owned(), nested(5, "repeat"), true));
    cases.push(("more of them".to_owned(), nested(20, "repeat"), false));
    for (name, format, compiles) in cases {
        let start = Instant::now();
        let outcome = compiler.compile(&tags(format));
        let took = start.elapsed();
        println!("{name}: {took:?}: {:?}", outcome.as_ref().err());
        assert!(took < LONG, "{name} took {took:?}");
        assert_eq!(outcome.is_ok(), compiles, "{name}");
        match outcome {
            Ok(mut matcher) => drop(mask(matcher.as_mut())),
            // Beyond 128 levels of values it is no JSON that is read here.
            Err(Refusal::Invalid { why, .. }) => assert!(why.contains("recursion"), "{why}"),
            Err(refusal) => assert!(matches!(refusal, Refusal::TooMuch { .. }), "{refusal:?}"),
        }
    }
}
