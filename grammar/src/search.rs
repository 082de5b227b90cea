//! Expressions that are looked for in a text while it is written, wherever its bytes are
//! divided: one automaton for all of them, that no text can make slow.

use crate::{Limits, Refusal, expression};
use regex_automata::dfa::{Automaton, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use std::fmt;
use std::sync::Arc;

/// Expressions at most.
const EXPRESSIONS_MAX: usize = 16;
/// Bytes of the automaton, and of what it is made of.
const AUTOMATON_BYTES: usize = 512 << 10;
const MAKING_BYTES: usize = 4 << 20;

/// Expressions of which a text shall hold one. Texts share it.
#[derive(Clone)]
pub struct Search(Arc<dense::DFA<Vec<u32>>>);

/// How far one text has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Searched(Option<StateID>);

impl Search {
    /// Looks the expressions over, and compiles them; a refusal says which is at fault by its
    /// place.
    pub fn new(expressions: &[String], limits: &Limits) -> Result<Self, Refusal> {
        let got = expressions.len() as u64;
        if got > EXPRESSIONS_MAX as u64 {
            let most = EXPRESSIONS_MAX as u64;
            return Err(Refusal::TooMuch { what: "expressions", got, most });
        }
        for (at, expression) in expressions.iter().enumerate() {
            let place = |refusal: Refusal| refusal.under(&format!("/{at}"));
            expression::look_over(expression, limits).map_err(place)?;
            // Each alone first: of all together, none could be named.
            compiled(std::slice::from_ref(expression)).map_err(place)?;
        }
        compiled(expressions).map(|automaton| Self(Arc::new(automaton)))
    }

    /// A text goes on by these bytes. Which expression is found in it, if one ends within
    /// them: the first of the list, where several do. One that was found before, and passed
    /// over, is not found again.
    pub fn push(&self, searched: &mut Searched, bytes: &[u8]) -> Option<usize> {
        let automaton = &*self.0;
        let first = || {
            let config = start::Config::new().anchored(Anchored::No);
            automaton.start_state(&config).expect("it begins anywhere, and quits nowhere")
        };
        let mut state = searched.0.unwrap_or_else(first);
        // What ends with a byte is known with the next, or with the text's end.
        let mut passed = searched.0.is_some() && self.ends(state).is_some();
        let mut found = None;
        for &byte in bytes {
            state = automaton.next_state(state, byte);
            found = found.or_else(|| self.found(state).filter(|_| !passed));
            passed = false;
        }
        searched.0 = Some(state);
        found.or_else(|| if bytes.is_empty() { None } else { self.ends(state) })
    }

    /// Which expression is found where the text ends here.
    fn ends(&self, state: StateID) -> Option<usize> {
        self.found(self.0.next_eoi_state(state))
    }

    fn found(&self, state: StateID) -> Option<usize> {
        let automaton = &*self.0;
        let count = if automaton.is_match_state(state) { automaton.match_len(state) } else { 0 };
        (0..count).map(|at| automaton.match_pattern(state, at).as_usize()).min()
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Search of {}", self.0.pattern_len())
    }
}

fn compiled(expressions: &[String]) -> Result<dense::DFA<Vec<u32>>, Refusal> {
    let config = dense::Config::new()
        // It goes on after what was found, which may have come too early.
        .match_kind(MatchKind::All)
        .start_kind(regex_automata::dfa::StartKind::Unanchored)
        .dfa_size_limit(Some(AUTOMATON_BYTES))
        .determinize_size_limit(Some(MAKING_BYTES));
    let nfa = thompson::Config::new().nfa_size_limit(Some(MAKING_BYTES));
    let automaton = dense::Builder::new().configure(config).thompson(nfa).build_many(expressions);
    automaton.map_err(|error| {
        if error.is_size_limit_exceeded() {
            let (what, most) = ("bytes of automaton and more", AUTOMATON_BYTES as u64);
            return Refusal::TooMuch { what, got: most, most };
        }
        // The words of the parser stand beneath the builder's, in the last of its lines.
        let error = std::error::Error::source(&error).map_or(error.to_string(), deepest);
        let why = error.lines().last().unwrap_or_default().trim().to_owned();
        Refusal::Invalid { at: String::new(), why }
    })
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

#[cfg(test)]
mod tests {
    use super::{Search, Searched};
    use crate::{Limits, Refusal};

    fn search(expressions: &[&str]) -> Result<Search, Refusal> {
        let expressions: Vec<String> = expressions.iter().map(|it| (*it).to_owned()).collect();
        Search::new(&expressions, &Limits::default())
    }

    fn found(search: &Search, parts: &[&str]) -> Vec<Option<usize>> {
        let mut searched = Searched::default();
        parts.iter().map(|part| search.push(&mut searched, part.as_bytes())).collect()
    }

    #[test]
    fn an_expression_is_found_wherever_the_text_is_divided() {
        let search = search(&[r"[0-9]+\.", "é{2}"]).expect("good");
        let text = "a 12.é é";
        for cut in (1..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let (one, two) = text.split_at(cut);
            let all = found(&search, &[one, two]);
            assert_eq!(all.iter().flatten().collect::<Vec<_>>(), [&0], "{one}|{two}");
        }
        assert_eq!(found(&search, &["é", "", "é", "x"]), [None, None, Some(1), None]);
    }

    #[test]
    fn the_first_of_the_list_is_told_and_each_place_once() {
        let search = search(&["bc", "b", "d$"]).expect("good");
        assert_eq!(found(&search, &["ab", "c", "c", "b"]), [Some(1), Some(0), None, Some(1)]);
        assert_eq!(found(&search, &["d", "de", "ed"]), [Some(2), None, Some(2)]);
    }

    #[test]
    fn what_is_not_built_is_refused_by_its_place() {
        let at = |expressions: &[&str]| match search(expressions) {
            Err(Refusal::Invalid { at, why }) => (at, why),
            other => panic!("{other:?}"),
        };
        assert_eq!(at(&["a", "("]), ("/1".to_owned(), "error: unclosed group".to_owned()));
        for huge in [r"\w{200}x", "(a|b)*a(a|b){20}", "((a{1,900}){900}){900}"] {
            assert!(matches!(search(&[huge]), Err(Refusal::TooMuch { .. })), "{huge}");
        }
        assert!(matches!(search(&["a"; 17]), Err(Refusal::TooMuch { .. })));
        for fine in [r"\w+\s\d", r"(?i)(?-u:\b)stop|[^\x00-\x7F]", ".*Answer:.*\n"] {
            search(&[fine]).unwrap_or_else(|refusal| panic!("{fine}: {refusal}"));
        }
    }
}
