//! Structural tags: what their masks allow, and what is refused.

#[path = "vocabulary/formats.rs"]
mod formats;
mod vocabulary;

use formats::{any_text, constant, number, tag, tags};
use grammar::{Refusal, Source};
use serde_json::{Value, json};
use vocabulary::{CALL, DONE, END, bytes, compiler, longest, mask, takes};

/// Two functions behind one trigger.
fn functions(more: Value) -> Source {
    let mut format = json!({
        "type": "triggered_tags",
        "triggers": ["<function="],
        "tags": [
            tag("<function=add>", number(), "</function>"),
            tag("<function=say>", any_text(), "</function>"),
        ],
    });
    for (name, value) in more.as_object().expect("fields") {
        format[name] = value.clone();
    }
    tags(format)
}

/// Texts are good or bad, however they are cut into tokens.
fn check(source: &Source, good: &[&str], bad: &[&str]) {
    let compiler = compiler();
    for (texts, expected) in [(good, true), (bad, false)] {
        for text in texts {
            for tokens in [bytes(text), longest(text)] {
                let taken = takes(&compiler, source, &tokens);
                assert_eq!(taken, expected, "{text} as {tokens:?} of {source:?}");
            }
        }
    }
}

#[test]
fn each_format_takes_what_it_says_and_nothing_else() {
    let regex = |pattern: &str| json!({"type": "regex", "pattern": pattern});
    let sequence = |elements: Value| json!({"type": "sequence", "elements": elements});
    let of = |name: &str, content: Value| json!({"type": name, "content": content});
    let cases: Vec<(Value, &[&str], &[&str])> = vec![
        (constant("a\"\\\n\u{7f}/é"), &["a\"\\\n\u{7f}/é"], &["", "a", "a\"\\\n\u{7f}/éx"]),
        (number(), &["0", "-12"], &["", "1.5", "x"]),
        (regex("[a-c]+/\n|"), &["abc/\n", ""], &["abc", "/", "d"]),
        (any_text(), &["", "a <b> é\n"], &[]),
        (json!({"type": "any_text", "excludes": ["ab", "c"]}), &["", "axb"], &["xab", "c"]),
        (
            sequence(json!([constant("a"), number(), regex("b?"), constant("c")])),
            &["a1bc", "a1c"],
            &["a1b", "ac", "a1bcc"],
        ),
        (
            sequence(json!([regex("[a-z]+"), constant("b"), tag("(", number(), ")")])),
            &["ab(1)", "abcb(1)"],
            &["b(1)", "abc(1)", "abcb"],
        ),
        // Words are one word: the expression gives back what the text needs.
        (sequence(json!([regex("[a-z]+"), constant("b")])), &["ab", "abcb"], &["b", "abc"]),
        (
            json!({"type": "or", "elements": [constant("yes"), number(), constant("y")]}),
            &["yes", "7", "y"],
            &["", "ye", "yes7"],
        ),
        (of("optional", constant("yes")), &["", "yes"], &["yesyes"]),
        (of("star", constant("no")), &["", "no", "nono"], &["n"]),
        (of("plus", number()), &["1", "12"], &[""]),
        (
            json!({"type": "repeat", "min": 1, "max": 2, "content": constant("ab")}),
            &["ab", "abab"],
            &["", "ababab"],
        ),
        (
            json!({"type": "repeat", "min": 2, "max": -1, "content": tag("(", number(), ")")}),
            &["(1)(2)", "(1)(2)(3)"],
            &["(1)", "(1)2"],
        ),
        (tag("<", any_text(), ">"), &["<>", "<a b<>"], &["<a", "<a>b", "a>"]),
        (
            json!({"type": "tag", "begin": "", "content": any_text(), "end": ["ab", "</x>"]}),
            &["ab", "xx</x>", "aab"],
            &["", "xx", "abx"],
        ),
        (
            tag("(", json!({"type": "or", "elements": [any_text(), number()]}), ")"),
            &["()", "(12)", "(x)"],
            &["(", "(x"],
        ),
        (tag("(", of("optional", any_text()), ")"), &["()", "(x)"], &["(x"]),
        (tag("(", of("optional", number()), ""), &["(", "(1"], &["", "(x"]),
        (
            sequence(json!([any_text(), tag("<f>", number(), "</f>"), any_text()])),
            &["<f>1</f>", "a<<f>1</f>b<f>c"],
            &["", "a", "<f>x</f>"],
        ),
    ];
    for (format, good, bad) in cases {
        check(&tags(format), good, bad);
    }
}

#[test]
fn text_has_no_trigger_but_where_a_tag_begins() {
    check(
        &functions(json!({})),
        &[
            "",
            "text",
            "<function",
            "<fun<func <functionx=",
            "<function=add>12</function>",
            "a<b<function=add>1</function>c<function=say></function>",
            "<<function=say> <function=add>x</funct </function>",
            "</function>",
        ],
        &[
            "<function=",
            "x<function=ad>1</function>",
            "<function=add>x</function>",
            "<function=add>1</function",
            "<function=sub>1</function>",
            "a<function=say>",
        ],
    );
}

#[test]
fn a_trigger_of_no_tag_is_in_no_text() {
    let source = tags(json!({
        "type": "triggered_tags", "triggers": ["<f", "<g"], "tags": [tag("<f>", number(), ";")],
    }));
    check(&source, &["", "<<f>1;g"], &["<g", "a<g>1;", "<f>1;<g"]);
}

#[test]
fn the_first_must_come_or_be_the_last() {
    let (one, two) = ("<function=add>1</function>", "<function=say>x</function>");
    let both = [one, two].concat();
    let (before, after) = (format!("x{one}"), format!("{one}x"));
    let text = |at_least_one: bool, stop_after_first: bool| {
        functions(json!({"at_least_one": at_least_one, "stop_after_first": stop_after_first}))
    };
    check(&text(false, false), &["", "x", one, &both, &before, &after], &[]);
    check(&text(true, false), &[one, &both, &after], &["", "x", &before]);
    check(&text(false, true), &["", "x", one, &before], &[&both, &after]);
    check(&text(true, true), &[one, two], &["", "x", &both, &before, &after]);
}

#[test]
fn what_is_excluded_is_nowhere_in_the_text() {
    let source = functions(json!({"excludes": ["ab", "tion"]}));
    // The trigger has one of them.
    assert!(compiler().compile(&source).is_err());
    let source = functions(json!({"excludes": ["ab"]}));
    let good = ["a<function=say>ab</function>b"];
    check(&source, &good, &["ab", "xab<function=say></function>", "<function=say></function>ab"]);
}

#[test]
fn a_special_token_is_that_token_and_its_letters() {
    let calls = json!({
        "type": "triggered_tags",
        "triggers": ["<|call|>", "x<|call|>"],
        "tags": [tag("<|call|>f", number(), "</call>"), tag("x<|call|>", number(), ".</call>")],
    });
    // Both begin with the token; the text before it tells them apart.
    assert!(compiler().compile(&tags(calls)).is_ok());
    let calls = json!({
        "type": "triggered_tags",
        "triggers": ["<|call|>"],
        "tags": [tag("<|call|>f", number(), "</call>"), tag("<|call|>g", any_text(), "</call>")],
    });
    let good = ["", "<|call", "a<|call|>f1</call>b", "<|call|>ga</call<</call><|call|>f2</call>"];
    check(&tags(calls.clone()), &good, &["<|call|>", "a<|call|>h", "<|call|>f1", "<|call|>gx"]);
    let compiler = compiler();
    let mut matcher = compiler.compile(&tags(calls)).expect("good");
    let first = mask(matcher.as_mut());
    assert!(first.contains(&CALL) && !first.contains(&DONE));
    for token in [u32::from(b'<'), CALL] {
        matcher.accept(token).expect("allowed");
    }
    assert_eq!(mask(matcher.as_mut()), [b'f', b'g'].map(u32::from));
    for token in [u32::from(b'g'), u32::from(b'x')] {
        matcher.accept(token).expect("allowed");
    }
    let inside = mask(matcher.as_mut());
    assert!(inside.contains(&DONE) && !inside.contains(&CALL) && !inside.contains(&END));
}

#[test]
fn a_trigger_may_end_within_the_name_of_a_token() {
    let calls = json!({
        "type": "triggered_tags",
        "triggers": ["a<|"],
        "tags": [tag("a<|call|>", number(), ";")],
    });
    check(&tags(calls), &["a", "<|call", "xa<|call|>1;aa"], &["a<|", "a<|x", "a<|call|>;"]);
}

#[test]
fn tokens_are_asked_for_by_id_and_by_name() {
    let compiler = compiler();
    for token in [json!(CALL), json!("<|call|>")] {
        let token = json!({"type": "token", "token": token});
        let end = json!({"type": "token", "token": DONE});
        let format = json!({"type": "tag", "begin": token, "content": any_text(), "end": end});
        let source = tags(json!({"type": "sequence", "elements": [any_text(), format]}));
        let text = [&bytes("x")[..], &[CALL], &bytes("</call>"), &[DONE]].concat();
        assert!(takes(&compiler, &source, &text));
        assert!(!takes(&compiler, &source, &bytes("<|call|>x</call>")));
    }
    for token in [json!("<|none|>"), json!(10_000), json!(-1)] {
        let refused = compiler.compile(&tags(json!({"type": "token", "token": token}))).err();
        let why = "there is no such token".to_owned();
        assert_eq!(refused, Some(Refusal::Invalid { at: "/format".into(), why }));
    }
}

#[test]
fn a_token_that_ends_answers_stands_in_none() {
    let named = "<|end|>, which ends answers,".to_owned();
    for (format, at, keyword) in [
        (constant("a<|end|>"), "/format", named.clone()),
        (tag("(", number(), "<|end|>"), "/format/end", named),
        (
            json!({"type": "token", "token": END}),
            "/format",
            format!("token {END}, which ends answers,"),
        ),
    ] {
        let refused = compiler().compile(&tags(format)).err();
        assert_eq!(refused, Some(Refusal::Unsupported { at: at.into(), keyword }));
    }
    check(&tags(json!({"type": "any_text", "excludes": ["<|end|>"]})), &["<|end"], &[]);
}

#[test]
fn tags_are_separated_and_nothing_else_is_between() {
    let text = |at_least_one: bool, one: bool| {
        tags(json!({
            "type": "tags_with_separator", "separator": ", ", "at_least_one": at_least_one,
            "stop_after_first": one,
            "tags": [tag("(", number(), ")"), tag("[", any_text(), "]")],
        }))
    };
    check(&text(false, false), &["", "(1)", "(1), [x], (2)"], &["(1),", "(1)(2)", "x", ", (1)"]);
    check(&text(true, false), &["(1)", "[], (1)"], &[""]);
    check(&text(false, true), &["", "(1)"], &["(1), (1)"]);
    check(&text(true, true), &["(1)"], &["", "(1), (1)"]);
}

#[test]
fn formats_stand_within_formats() {
    let inner = json!({
        "type": "triggered_tags", "triggers": ["<"],
        "tags": [tag("<n>", number(), "</n>"), tag("<ab>", any_text(), "</ab>")],
    });
    let outer = json!({
        "type": "sequence",
        "elements": [tag("<think>", any_text(), "</think>"), tag("[", inner, "]"), any_text()],
    });
    check(
        &tags(outer),
        &["<think></think>[]", "<think>[</think>[x<n>1</n>y<ab>]</ab>]<n>z"],
        &["<think>", "<think></think>[<x>]", "<think></think>[<n>1]", "[]"],
    );
}

#[test]
fn a_dispatch_goes_on_with_what_its_text_begins() {
    let rules = json!([["<f>", number()], ["<g>", constant("yes")]]);
    let format = json!({"type": "dispatch", "rules": rules, "excludes": ["no"]});
    check(&tags(format.clone()), &["", "a<f>1b<g>yes<f>2"], &["no", "<f>", "<g>no", "<f>1no"]);
    let once = json!({"type": "dispatch", "rules": format["rules"], "loop": false});
    check(&tags(once), &["", "a<f>1", "<g>yes"], &["<f>1b", "<g>yesx"]);
}

#[test]
fn the_older_form_is_triggers_and_structures() {
    let structure = |begin: &str, schema: Value| json!({"begin": begin, "schema": schema, "end": "</function>"});
    let source = |structures: Value| {
        let triggers = ["<function="];
        let all = json!({"type": "structural_tag", "structures": structures, "triggers": triggers});
        Source::Tags(all.to_string())
    };
    let good = source(json!([
        structure("<function=add>", json!({"type": "integer"})),
        structure("<function=not>", json!("{\"type\": \"boolean\"}")),
    ]));
    check(
        &good,
        &["", "x<function=add>1</function>y", "<function=not>true</function>"],
        &["<function=add>true</function>", "<function=", "<function=not>1</function>"],
    );
    let bad = source(json!([structure("<function=f>", json!({"items": {"not": {}}}))]));
    let at = "/structures/0/schema/items".to_owned();
    let not = Refusal::Unsupported { at, keyword: "not".into() };
    assert_eq!(compiler().compile(&bad).err(), Some(not));
}

#[test]
fn what_is_not_known_is_refused_by_name_and_place() {
    let compiler = compiler();
    let deep = |content: Value| json!({"type": "optional", "content": content});
    let unsupported = |at: &str, keyword: &str| Refusal::Unsupported {
        at: at.to_owned(),
        keyword: keyword.to_owned(),
    };
    let schema = json!({"type": "json_schema", "json_schema": {"items": {"uniqueItems": true}}});
    let triggered =
        |tags: Value| json!({"type": "triggered_tags", "triggers": ["<"], "tags": tags});
    for (format, refusal) in [
        (json!({"type": "yaml"}), unsupported("/format", "format yaml")),
        (
            json!({"type": "qwen_xml_parameter"}),
            unsupported("/format", "format qwen_xml_parameter"),
        ),
        (json!({"type": "grammar", "grammar": ""}), unsupported("/format", "grammar (EBNF)")),
        (json!({"type": "any_text", "a": 1}), unsupported("/format", "a")),
        (json!({"type": "any_text", "max_tokens": 3}), unsupported("/format", "max_tokens 3")),
        (
            deep(json!({"type": "json_schema", "json_schema": {}, "style": "glm_xml"})),
            unsupported("/format/content", "style \"glm_xml\""),
        ),
        (
            triggered(json!([tag("<f>", schema, "")])),
            unsupported("/format/tags/0/content/json_schema/items", "uniqueItems"),
        ),
        (
            json!({"type": "sequence", "elements": [any_text(), number()]}),
            unsupported(
                "/format/elements/0",
                "free text before what does not begin with a text or a token",
            ),
        ),
    ] {
        let source = tags(format);
        assert_eq!(compiler.compile(&source).err(), Some(refusal), "{source:?}");
    }
    for (format, at) in [
        (json!({"value": "a"}), "/format"),
        (json!({"type": "const_string"}), "/format"),
        (json!({"type": "or", "elements": []}), "/format"),
        (json!({"type": "repeat", "min": 3, "max": 2, "content": constant("a")}), "/format"),
        (json!({"type": "repeat", "min": -1, "max": 2, "content": constant("a")}), "/format"),
        (deep(json!(7)), "/format/content"),
        (json!({"type": "tag", "begin": 1, "content": number(), "end": ""}), "/format/begin"),
        (json!({"type": "tag", "begin": "", "content": number(), "end": []}), "/format/end"),
        (json!({"type": "triggered_tags", "triggers": [""], "tags": []}), "/format/triggers/0"),
        (
            json!({"type": "triggered_tags", "triggers": [], "tags": [tag("<", number(), ">")]}),
            "/format",
        ),
        (triggered(json!([tag("<f>", number(), ">"), tag("f>", number(), ">")])), "/format/tags/1"),
        (
            json!({"type": "triggered_tags", "triggers": ["<f", "<"],
            "tags": [tag("<f>", number(), ">")]}),
            "/format/tags/0",
        ),
    ] {
        let source = tags(format);
        match compiler.compile(&source).err() {
            Some(Refusal::Invalid { at: place, .. }) => assert_eq!(place, at, "{source:?}"),
            other => panic!("{source:?}: {other:?}"),
        }
    }
    for whole in [json!([]), json!({"type": "structural_tag"}), json!({"format": number()})] {
        let refused = compiler.compile(&Source::Tags(whole.to_string())).err();
        assert!(matches!(refused, Some(Refusal::Invalid { .. })), "{whole}: {refused:?}");
    }
}

#[test]
fn a_trigger_may_begin_others() {
    let triggers: Vec<String> = (1..200).map(|length| "<".repeat(length)).collect();
    let prefixes = json!({"type": "triggered_tags", "triggers": triggers,
        "tags": [tag("<", number(), ">")]});
    check(&tags(prefixes), &["", "a<1>"], &["<<"]);
}
