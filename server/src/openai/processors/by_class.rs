//! SGLang's `custom_logit_processor`: a pickled class, and `custom_params` for it. The classes
//! that are known are told by module and name, and done by this server's own processors; no
//! code of a request is ever executed.

use super::pickle::{self, Class};
use super::{List, Processor, TEMPERATURES, within};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use engine::processor::{Course, Schedule};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The field that names the class.
const FIELD: &str = "custom_logit_processor";
/// The field of what it takes.
const PARAMS: &str = "custom_params";
/// Bytes of a pickle: a reference to a class has a few hundred.
const PICKLE_BYTES_MAX: usize = 1 << 12;

const SGLANG: &str = "sglang.srt.sampling.custom_logit_processor";
const SKYRL: &str = "skyrl_train.inference_engines.sglang.rl_logit_processors";

/// What of ours a class is.
#[derive(Clone, Copy)]
enum Kind {
    Allowed,
    Disallowed(&'static str),
    Temperature,
    Thinking,
}

/// The classes that are known.
const KNOWN: [(&str, &str, Kind); 7] = [
    (SGLANG, "DisallowedTokensLogitsProcessor", Kind::Disallowed("token_ids")),
    (SGLANG, "Qwen3ThinkingBudgetLogitProcessor", Kind::Thinking),
    (SGLANG, "DeepSeekR1ThinkingBudgetLogitProcessor", Kind::Thinking),
    (SGLANG, "Glm4MoeThinkingBudgetLogitProcessor", Kind::Thinking),
    (SKYRL, "RLActionMaskProcessor", Kind::Allowed),
    (SKYRL, "DisallowedTokensProcessor", Kind::Disallowed("disallowed_token_ids")),
    (SKYRL, "TemperatureScaleProcessor", Kind::Temperature),
];

/// What a `custom_logit_processor` and its `custom_params` ask for. Such a text is JSON with
/// the hexadecimal digits of a pickle as `callable`, or one that SkyRL writes for its own.
pub fn of_pickle(
    custom_logit_processor: &str,
    custom_params: &Map<String, Value>,
) -> Result<Vec<Processor>, Refusal> {
    if let Some(processor) = of_words(custom_logit_processor)? {
        return Ok(vec![processor]);
    }
    let bytes = pickled(custom_logit_processor)?;
    let class = pickle::class(&bytes).map_err(|fault| unknown(&fault.to_string()))?;
    let Class { module, name } = class;
    let known = KNOWN.iter().find(|known| (known.0, known.1) == (module, name));
    let (_, _, kind) = known.ok_or_else(|| unknown(&format!("`{module}.{name}`")))?;
    let mut params = Fields::of(custom_params.clone());
    let read = |params: &mut Fields| match *kind {
        Kind::Allowed => Ok(Some(Processor::Allowed(list("valid_token_ids", params)?))),
        Kind::Disallowed(name) => Ok(Some(Processor::Disallowed(list(name, params)?))),
        Kind::Temperature => temperature(params).map(Some),
        Kind::Thinking => thinking(params),
    };
    let processor = read(&mut params).map_err(|refusal| within(PARAMS, refusal))?;
    params.done().map_err(|refusal| within(PARAMS, refusal))?;
    Ok(processor.into_iter().collect())
}

/// The bytes of the pickle.
fn pickled(text: &str) -> Result<Vec<u8>, Refusal> {
    let wrong = || {
        let words = "expected JSON with the hexadecimal digits of a pickled class as `callable`";
        Refusal::field(FIELD, words)
    };
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Err(wrong()) };
    let digits = match object.iter().next() {
        Some((name, Value::String(digits))) if name == "callable" && object.len() == 1 => digits,
        _ => return Err(wrong()),
    };
    if digits.len() > 2 * PICKLE_BYTES_MAX {
        return Err(unknown(&format!("a pickle of {} bytes", digits.len() / 2)));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(wrong)
}

fn unknown(got: &str) -> Refusal {
    let names: Vec<_> = KNOWN.iter().map(|known| known.1).collect();
    let words =
        format!("no code of a request is executed: expected {}, got {got}", names.join(", "));
    Refusal::field(FIELD, words)
}

/// The texts that SkyRL writes for its processors: a name, and tokens with commas.
fn of_words(text: &str) -> Result<Option<Processor>, Refusal> {
    let Some((name, tokens)) = text.split_once(':') else { return Ok(None) };
    let of: fn(List) -> Processor = match name {
        "rl_action_mask" => Processor::Allowed,
        "disallowed_tokens" => Processor::Disallowed,
        _ => return Ok(None),
    };
    let tokens: Result<Arc<[u32]>, _> = tokens.split(',').map(str::parse).collect();
    let tokens = tokens.map_err(|_| Refusal::field(FIELD, "expected tokens with commas"))?;
    Ok(Some(of(List { field: FIELD.to_owned(), tokens })))
}

fn list(name: &str, params: &mut Fields) -> Result<List, Refusal> {
    let tokens: Arc<[u32]> = params.must(name)?;
    if tokens.is_empty() {
        return Err(Refusal::expected(name, "at least one token", "none"));
    }
    Ok(List { field: format!("{PARAMS}.{name}"), tokens })
}

/// Where there is none, or a negative one, SGLang bounds nothing.
fn thinking(params: &mut Fields) -> Result<Option<Processor>, Refusal> {
    let name = "thinking_budget";
    let budget = params.within(name, i64::MIN..=i64::from(u32::MAX))?;
    let tokens = budget.and_then(|budget| u32::try_from(budget).ok());
    Ok(tokens.map(|tokens| Processor::thinking(&format!("{PARAMS}.{name}"), tokens)))
}

/// A straight line, with SkyRL's own values where none is given.
fn temperature(params: &mut Fields) -> Result<Processor, Refusal> {
    let start = params.within("initial_temp", TEMPERATURES)?.unwrap_or(1.0);
    let end = params.within("final_temp", TEMPERATURES)?.unwrap_or(0.1);
    let tokens = params.within("warmup_tokens", 1..=u32::MAX)?.unwrap_or(10);
    Ok(Processor::Temperature(Schedule { start, end, course: Course::Tokens(tokens) }))
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, of_pickle};
    use crate::openai::processors::{List, Processor};
    use engine::processor::{Course, Schedule};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A class by reference, as protocol 4 has it.
    fn pickled(module: &str, name: &str) -> Vec<u8> {
        let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes(), &[0x94]].concat();
        let frame = [text(module), text(name), vec![0x93, 0x94, b'.']].concat();
        [&[0x80, 4, 0x95], &(frame.len() as u64).to_le_bytes()[..], &frame].concat()
    }

    fn callable(bytes: &[u8]) -> String {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"callable": digits}).to_string()
    }

    fn asked(text: &str, params: Value) -> Result<Vec<Processor>, String> {
        let all = of_pickle(text, params.as_object().expect("an object"));
        all.map_err(|refusal| {
            assert_eq!(refusal.status, 400);
            refusal.param.expect("a field")
        })
    }

    fn list(field: &str, tokens: &[u32]) -> List {
        List { field: field.into(), tokens: tokens.into() }
    }

    #[test]
    fn classes_are_known_by_module_and_name() {
        let thinking = || Ok(vec![Processor::thinking("custom_params.thinking_budget", 9)]);
        let line = |start, end, tokens| {
            let course = Course::Tokens(tokens);
            Ok(vec![Processor::Temperature(Schedule { start, end, course })])
        };
        for (name, params, expected) in [
            (
                "DisallowedTokensLogitsProcessor",
                json!({"token_ids": [5, 6]}),
                Ok(vec![Processor::Disallowed(list("custom_params.token_ids", &[5, 6]))]),
            ),
            ("Qwen3ThinkingBudgetLogitProcessor", json!({"thinking_budget": 9}), thinking()),
            ("DeepSeekR1ThinkingBudgetLogitProcessor", json!({"thinking_budget": 9}), thinking()),
            ("Glm4MoeThinkingBudgetLogitProcessor", json!({"thinking_budget": 9}), thinking()),
            ("Qwen3ThinkingBudgetLogitProcessor", json!({"thinking_budget": -1}), Ok(vec![])),
            ("Qwen3ThinkingBudgetLogitProcessor", json!({}), Ok(vec![])),
            (
                "RLActionMaskProcessor",
                json!({"valid_token_ids": [1]}),
                Ok(vec![Processor::Allowed(list("custom_params.valid_token_ids", &[1]))]),
            ),
            (
                "DisallowedTokensProcessor",
                json!({"disallowed_token_ids": [1]}),
                Ok(vec![Processor::Disallowed(list("custom_params.disallowed_token_ids", &[1]))]),
            ),
            ("TemperatureScaleProcessor", json!({}), line(1.0, 0.1, 10)),
            (
                "TemperatureScaleProcessor",
                json!({"initial_temp": 2, "final_temp": 0.5, "warmup_tokens": 3}),
                line(2.0, 0.5, 3),
            ),
            // What they take is refused by its field.
            ("DisallowedTokensLogitsProcessor", json!({}), Err("custom_params.token_ids".into())),
            (
                "DisallowedTokensLogitsProcessor",
                json!({"token_ids": [1], "more": 1}),
                Err("custom_params.more".into()),
            ),
            (
                "RLActionMaskProcessor",
                json!({"valid_token_ids": []}),
                Err("custom_params.valid_token_ids".into()),
            ),
            (
                "Qwen3ThinkingBudgetLogitProcessor",
                json!({"thinking_budget": "9"}),
                Err("custom_params.thinking_budget".into()),
            ),
            (
                "TemperatureScaleProcessor",
                json!({"warmup_tokens": 0}),
                Err("custom_params.warmup_tokens".into()),
            ),
        ] {
            let known = KNOWN.iter().find(|known| known.1 == name).expect("it is known");
            let text = callable(&pickled(known.0, name));
            assert_eq!(asked(&text, params.clone()), expected, "{name} {params}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_never_executed() {
        let module = KNOWN[0].0;
        let by_value = [&pickled(module, KNOWN[0].1)[..13], b"\x8c\x04type(R."].concat();
        for (text, said) in [
            (callable(&pickled("__main__", KNOWN[0].1)), "`__main__.DisallowedTokens"),
            (callable(&pickled(module, "Mine")), ".Mine`"),
            // A name of the one within a module of the other.
            (callable(&pickled(module, KNOWN[4].1)), ".RLActionMaskProcessor`"),
            (callable(&pickled(module, &format!("{}.inner", KNOWN[0].1))), ".inner`"),
            (callable(b"cos\nsystem\n(S'true'\ntR."), "opcode 0x28"),
            (callable(&by_value), "pickle"),
            (callable(b""), "ends too early"),
            (callable(&[0x94; 5000]), "5000 bytes"),
            (String::new(), "expected JSON"),
            ("{}".into(), "expected JSON"),
            (json!({"callable": "8"}).to_string(), "expected JSON"),
            (json!({"callable": "zz"}).to_string(), "expected JSON"),
            (json!({"callable": 3}).to_string(), "expected JSON"),
            (json!({"callable": "2e", "more": 1}).to_string(), "expected JSON"),
        ] {
            let refusal = of_pickle(&text, &Default::default()).expect_err("it is not known");
            assert_eq!(refusal.param.as_deref(), Some("custom_logit_processor"), "{text}");
            assert!(refusal.message.contains(said), "{said} is not in {}", refusal.message);
        }
    }

    #[test]
    fn the_texts_of_skyrl_are_read() {
        let allowed = Processor::Allowed(list("custom_logit_processor", &[1, 2]));
        assert_eq!(asked("rl_action_mask:1,2", json!({})), Ok(vec![allowed]));
        let none = Processor::Disallowed(list("custom_logit_processor", &[7]));
        assert_eq!(asked("disallowed_tokens:7", json!({})), Ok(vec![none]));
        for text in ["rl_action_mask:", "rl_action_mask:1,x", "rl_action_mask:-1", "mask:1"] {
            assert_eq!(asked(text, json!({})), Err("custom_logit_processor".into()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_one_of_those_that_are_known(
            which in 0usize..7, at in 0usize..120, byte: u8, text in ".{0,40}",
        ) {
            let mut bytes = pickled(KNOWN[which].0, KNOWN[which].1);
            let at = at % bytes.len();
            let same = bytes[at] == byte;
            bytes[at] = byte;
            let params = json!({"token_ids": [1], "valid_token_ids": [1], "disallowed_token_ids": [1]});
            for text in [callable(&bytes), text] {
                match of_pickle(&text, params.as_object().expect("an object")) {
                    Ok(all) => prop_assert!(all.len() <= 1),
                    Err(refusal) => {
                        prop_assert_eq!(refusal.status, 400);
                        prop_assert!(refusal.param.is_some());
                    }
                }
            }
            // A changed letter of a name makes it another's.
            let within_name = at > bytes.len() - 4 - KNOWN[which].1.len() && at < bytes.len() - 4;
            if within_name && !same {
                prop_assert!(of_pickle(&callable(&bytes), &Default::default()).is_err());
            }
        }
    }
}
