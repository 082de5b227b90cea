//! Grammars: what their masks allow, and what is refused.

mod vocabulary;

use grammar::{
    Compiler, Fault, Grammar, Job, Limits, Masker, Refusal, Settings, Source, Text, Threads,
};
use serde_json::json;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;
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
    let blanks = |count: usize| format!("{{\"name\":{}\"Al\"}}", " ".repeat(count));
    let (few, many) = (blanks(16), blanks(17));
    let lark = "start: \"(\" inner* \")\"\ninner: start | /[a-c]/";
    let cases: [(Source, &[&str], &[&str]); 6] = [
        (
            Source::Compact(r#"{"type": "array", "items": {"type": "object"}}"#.into()),
            &[r#"[{"a":1},{}]"#, r#"[{"a":" "}]"#],
            &["[ ]", r#"[{},{ }]"#, r#"[{"a": 1}]"#],
        ),
        (
            person,
            &[r#"{"name":"Ada"}"#, r#"{"name": "Al", "age": 36}"#, &few],
            &[
                &many,
                r#"{"name":"Adas"}"#,
                r#"{"age":3}"#,
                r#"{"name":"A","x":1}"#,
                r#"{"name":"A""#,
            ],
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

#[test]
fn the_page_has_the_keywords_and_formats_that_are_honoured() {
    let page = include_str!("../../docs/serving.md");
    let row = |head: &str| {
        let row = page.lines().find(|line| line.starts_with(head)).expect("the page has the row");
        row.split('`').skip(1).step_by(2).collect::<Vec<_>>()
    };
    let (honoured, refused) = grammar::schema_keywords();
    assert_eq!(row("| honoured |"), honoured);
    assert_eq!(row("| refused by name |"), refused);
    let compiler = compiler();
    let compiles = |format: &str| {
        let source = schema(json!({"type": "string", "format": format}));
        compiler.compile(&source).is_ok()
    };
    let formats = row("| `format`s honoured |").split_off(1);
    assert!(formats.len() == 10 && formats.into_iter().all(compiles));
    // All others of the draft.
    for other in ["idn-email", "idn-hostname", "iri", "json-pointer", "regex", "uri-reference"] {
        assert!(!compiles(other), "{other}");
    }
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
        schema(json!({"$ref": "#"})),
    ] {
        let refusal = refused(source.clone());
        assert!(matches!(refusal, Refusal::Invalid { .. }), "{source:?}: {refusal:?}");
    }
    let limits = Limits { bytes: 10, ..Limits::default() };
    let small = Compiler::new(&tokens(), Settings { limits, ..Settings::default() });
    let long = small.compile(&Source::Expression("a".repeat(11))).err();
    assert_eq!(long, Some(Refusal::TooMuch { what: "bytes", got: 11, most: 10 }));
}

#[test]
fn what_takes_little_waits_for_nothing_that_takes_much() {
    const MANY: u8 = 8;
    // Fewer places than there will be of those that take much.
    let patience = Duration::from_secs(120);
    let settings = Settings { threads: 1, waiting: 4, patience, ..Settings::default() };
    let compiler = Compiler::new(&tokens(), settings);
    // More than is spent at once, less than may be spent: by its steps, and by its bytes.
    let long = "start: A\nA: /a{1,9000}b/ & /[a-c]{1,20000}b/ & /a{8000,30000}b/";
    let hungry = Source::Lark(long.into());
    let little = Settings {
        limits: Limits { build_fuel: 100_000, ..Limits::default() },
        ..Settings::default()
    };
    assert!(Compiler::new(&tokens(), little).compile(&hungry).is_err());
    assert!(compiler.compile(&hungry).is_ok());
    let wide = |kind: u8| {
        let names = (0..4000).map(|at| format!("{kind} {at}")).collect::<Vec<_>>();
        schema(json!({"enum": names}))
    };
    let done = AtomicU8::new(0);
    thread::scope(|scope| {
        for kind in 0..MANY {
            let (compiler, done) = (&compiler, &done);
            scope.spawn(move || {
                while let Err(refusal) = compiler.compile(&wide(kind)) {
                    assert_eq!(refusal, Refusal::Busy);
                    thread::yield_now();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        // The others wait for their turn then.
        while done.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        assert!(compiler.compile(&Source::Expression("[0-9]+".into())).is_ok());
        assert!(done.load(Ordering::Relaxed) < MANY, "it came before the last of them");
    });
}

#[test]
fn numbers_that_would_be_rounded_are_refused() {
    let compiler = compiler();
    let compiles = |text: &str| compiler.compile(&Source::Schema(text.into())).map(drop);
    for number in ["9007199254740993", "-9007199254740993", "12345678901234567890123"] {
        for keyword in ["const", "minimum", "exclusiveMaximum"] {
            let float = number.len() > 20 && keyword != "const";
            let refused = compiles(&format!("{{\"{keyword}\": {number}}}"));
            let known =
                matches!(&refused, Err(Refusal::Unsupported { at, .. }) if at.ends_with(keyword));
            assert!(known || float, "{keyword} {number}: {refused:?}");
        }
        let refused = compiles(&format!("{{\"enum\": [[{number}]]}}"));
        assert!(matches!(refused, Err(Refusal::Unsupported { .. })), "{number}: {refused:?}");
    }
    assert_eq!(compiles("{\"const\": 9007199254740991, \"maximum\": 1e300}"), Ok(()));
}

#[test]
fn a_token_that_there_is_not_may_not_come() {
    let mut matcher = compiler().compile(&Source::Choice(vec!["yes".into()])).expect("good");
    let none = tokens().count();
    assert_eq!(matcher.accept(none), Err(Fault::NotAllowed(none)));
    assert_eq!(matcher.allowed(&[b'y'.into(), none]), Ok(1));
    assert_eq!(mask(matcher.as_mut()), [u32::from(b'y'), 260], "nothing was taken");
}

#[test]
fn a_text_that_wears_the_lexer_out_takes_nothing_from_others() {
    // Few states: each stretch of letters is another one.
    let limits = Limits { states: 600, ..Limits::default() };
    let compiler = Compiler::new(&tokens(), Settings { limits, ..Settings::default() });
    let source =
        Source::Lark("start: \"x\" A | \"y\" B\nA: /([ab]*a[ab]{12}c)+/\nB: /[0-9]*/".into());
    let mut hungry = compiler.compile(&source).expect("good");
    let mut modest = compiler.compile(&source).expect("good");
    modest.accept(b'y'.into()).expect("allowed");
    hungry.accept(b'x'.into()).expect("allowed");
    let mut state = 1u32;
    let mut fault = None;
    for _ in 0..4000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let token = u32::from(if state >> 31 == 0 { b'a' } else { b'b' });
        let mut words = vec![0; tokens().mask_words()];
        fault = hungry.accept(token).and_then(|()| hungry.mask(&mut words)).err();
        if fault.is_some() {
            break;
        }
    }
    assert!(matches!(fault, Some(Fault::TooMuch(_))), "it is too much at last: {fault:?}");
    let digits: Vec<u32> = (b'0'..=b'9').map(u32::from).chain([END]).collect();
    for _ in 0..3 {
        let may: Vec<u32> =
            mask(modest.as_mut()).into_iter().filter(|t| *t < 256 || *t == END).collect();
        assert_eq!(may, digits);
        modest.accept(b'7'.into()).expect("allowed");
    }
    let mut later = compiler.compile(&source).expect("good");
    assert_eq!(mask(later.as_mut()), [u32::from(b'x'), u32::from(b'y')]);
}

#[test]
fn a_dear_text_keeps_no_other_waiting() {
    let compiler = compiler();
    let grammar = |source: &Source| Grammar::new(compiler.compile(source).expect("good"));
    let dear = grammar(&Source::Lark("start: s\ns: s s | \"a\" | \"b\" | \"a\" \"b\"".into()));
    let cheap = grammar(&Source::Expression("[0-9]*".into()));
    let mut masker = Threads::new(1, Duration::from_secs(60));
    let words = tokens().mask_words();
    // As long as each step of it takes longer than any of another.
    let text: Vec<u32> = "ab".repeat(120).bytes().map(u32::from).collect();
    let job = |id, text, tokens, dear| Job { id, text, tokens, paths: Vec::new(), words, dear };
    masker.ask(vec![job(1, Text::New(dear), text, false)]);
    let next = |masker: &mut Threads, id| {
        let mut all = masker.done(&[id]);
        let at = all.iter().position(|done| done.id == id).expect("it is done");
        all.swap_remove(at).outcome.expect("no fault")
    };
    let long = next(&mut masker, 1);
    assert!(long.dear);
    let longer = job(1, Text::Begun(long.matcher), vec![b'a'.into()], long.dear);
    masker.ask(vec![longer, job(2, Text::New(cheap), vec![b'7'.into()], false)]);
    let all = masker.done(&[2]);
    assert_eq!(all.iter().map(|done| done.id).collect::<Vec<_>>(), [2], "it came first");
    assert!(all[0].outcome.is_ok());
}
