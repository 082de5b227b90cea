//! Masks of a tree of drafts are those of the texts that its paths spell.

mod vocabulary;

use grammar::{Fault, Matcher, Source, Tree, tree_masks};
use serde_json::json;
use vocabulary::{CALL, DONE, END, bytes, compiler, longest, mask, takes, tokens};

/// What forks say that walk each path from the present text.
fn walked(matcher: &dyn Matcher, tree: Tree<'_>) -> (Vec<bool>, Vec<Vec<u32>>) {
    let words = tokens().mask_words();
    let of = |path: &[u32]| {
        let mut fork = matcher.fork();
        let mut row = vec![0; words];
        let taken = path.iter().all(|&token| fork.accept(token).is_ok());
        if taken {
            fork.mask(&mut row).expect("a mask");
        }
        (taken, row)
    };
    let mut rows = vec![of(&[]).1];
    let mut may_come = Vec::new();
    for node in 0..tree.tokens.len() {
        let mut path = Vec::new();
        let mut at = Some(node as u32);
        while let Some(node) = at {
            path.insert(0, tree.tokens[node as usize]);
            at = tree.parents[node as usize];
        }
        let (taken, row) = of(&path);
        may_come.push(taken);
        rows.push(row);
    }
    (may_come, rows)
}

/// The tree's masks are those of its paths, and the matcher is where it was.
fn check(matcher: &mut dyn Matcher, tree: Tree<'_>) -> Vec<bool> {
    let (expected, rows) = walked(matcher, tree);
    let before = (mask(matcher), matcher.may_end());
    let words = tokens().mask_words();
    let mut masks = vec![!0; words * (tree.tokens.len() + 1)];
    let may_come = tree_masks(matcher, tree, &mut masks).expect("masks");
    assert_eq!(may_come, expected, "{tree:?}");
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(&masks[at * words..][..words], row, "row {at} of {tree:?}");
    }
    assert_eq!((mask(matcher), matcher.may_end()), before, "{tree:?}");
    may_come
}

fn sources() -> [(Source, Vec<u32>); 5] {
    let person = json!({"type": "object", "properties": {"no": {"type": "boolean"}}});
    let calls = json!({"type": "structural_tag", "format": {
        "type": "triggered_tags", "triggers": ["<|call|>"],
        "tags": [{
            "type": "tag", "begin": "<|call|>", "end": "</call>",
            "content": {"type": "json_schema", "json_schema": {"type": "integer"}},
        }],
    }});
    [
        (Source::Schema(person.to_string()), longest("{\"no\":true}")),
        (Source::Expression("(ab|a|yes)*(no)?".into()), longest("abyesano")),
        (Source::Choice(vec!["yes".into(), "no".into(), "yesno".into()]), longest("yesno")),
        (Source::Tags(calls.to_string()), longest("a<|call|>12</call>b<")),
        (
            Source::Lark("start: <|call|> (\"a\" <|call|>)* </call>".into()),
            vec![CALL, u32::from(b'a'), CALL, DONE],
        ),
    ]
}

/// Numbers that nobody chose.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn each_row_is_the_mask_of_its_path() {
    let compiler = compiler();
    let mut state = 7;
    for (source, text) in sources() {
        assert!(takes(&compiler, &source, &text), "{source:?}");
        let mut allowed = [0, 0];
        let mut ended = 0;
        for _ in 0..60 {
            let mut matcher = compiler.compile(&source).expect("good");
            for &token in &text[..random(&mut state) % (text.len() + 1)] {
                matcher.accept(token).expect("a good text");
            }
            let mut tree = (Vec::new(), Vec::new());
            // Most nodes are what may come after their parent, some are not; ends are among both.
            for node in 0..random(&mut state) % 24 {
                let parent = (random(&mut state) % (node + 1)).checked_sub(1).map(|at| at as u32);
                let (tokens, parents): (&[u32], &[Option<u32>]) = (&tree.0, &tree.1);
                let (_, rows) = walked(matcher.as_ref(), Tree { tokens, parents });
                let row = &rows[parent.map_or(0, |parent| parent as usize + 1)];
                let may: Vec<u32> =
                    (0..END + 3).filter(|t| row[(t / 32) as usize] >> (t % 32) & 1 == 1).collect();
                let token = match random(&mut state) % 6 {
                    0 => random(&mut state) as u32 % (END + 3),
                    1 => END,
                    _ if may.is_empty() => END,
                    _ => may[random(&mut state) % may.len()],
                };
                tree.0.push(token);
                tree.1.push(parent);
            }
            // What may come is counted as it is taken.
            let path = tree.0.clone();
            let count = path.iter().take_while({
                let mut fork = matcher.fork();
                move |token| fork.accept(**token).is_ok()
            });
            assert_eq!(matcher.allowed(&path), Ok(count.count()), "{path:?} of {source:?}");
            let tree = Tree { tokens: &tree.0, parents: &tree.1 };
            let may_come = check(matcher.as_mut(), tree);
            for (&token, &may) in tree.tokens.iter().zip(&may_come) {
                allowed[usize::from(may)] += 1;
                ended += usize::from(may && token == END);
            }
        }
        assert!(allowed[0] > 20 && allowed[1] > 20 && ended > 0, "{source:?}: {allowed:?} {ended}");
    }
}

#[test]
fn a_text_may_end_in_one_branch_and_go_on_in_another() {
    let compiler = compiler();
    let mut matcher = compiler.compile(&Source::Expression("ab(c|d)?".into())).expect("good");
    let [a, b, c] = bytes("abc")[..] else { unreachable!("three bytes") };
    // a(b(end(c), c(end, c)), end)
    let tokens = [a, b, END, c, c, END, c, END];
    let parents = [None, Some(0), Some(1), Some(2), Some(1), Some(4), Some(4), Some(0)];
    let tree = Tree { tokens: &tokens, parents: &parents };
    let may_come = check(matcher.as_mut(), tree);
    assert_eq!(may_come, [true, true, true, false, true, true, false, false]);
    assert_eq!(matcher.allowed(&[a, b, c, END, END, c]), Ok(5));
    // The text has ended already.
    for token in [a, b, c, END] {
        matcher.accept(token).expect("allowed");
    }
    assert_eq!(matcher.allowed(&[END, a]), Ok(1));
    check(matcher.as_mut(), Tree { tokens: &[END, a, END], parents: &[None, None, Some(0)] });
    matcher.take_back(2).expect("there are four");
    assert_eq!(mask(matcher.as_mut()), [c, u32::from(b'd'), END]);
}

#[test]
fn a_tree_of_nothing_is_the_mask_of_the_text() {
    let mut matcher = compiler().compile(&Source::Object).expect("good");
    assert_eq!(check(matcher.as_mut(), Tree { tokens: &[], parents: &[] }), [false; 0]);
}

#[test]
fn each_node_is_accepted_once() {
    /// Takes any token, and counts.
    struct Counted {
        accepted: usize,
        depth: usize,
    }
    impl Matcher for Counted {
        fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault> {
            words.fill(self.depth as u32);
            Ok(())
        }
        fn accept(&mut self, token: u32) -> Result<(), Fault> {
            self.accepted += 1;
            if token == 0 {
                return Err(Fault::NotAllowed(0));
            }
            self.depth += 1;
            Ok(())
        }
        fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault> {
            Ok(tokens.len())
        }
        fn take_back(&mut self, count: usize) -> Result<(), Fault> {
            self.depth -= count;
            Ok(())
        }
        fn may_end(&mut self) -> Result<bool, Fault> {
            Ok(false)
        }
        fn fork(&self) -> Box<dyn Matcher> {
            unreachable!("a walk needs no fork")
        }
    }
    let mut matcher = Counted { accepted: 0, depth: 5 };
    let tree = Tree {
        tokens: &[1, 1, 0, 1, 1, 1],
        parents: &[None, Some(0), Some(0), Some(2), Some(0), Some(4)],
    };
    let mut masks = [9; 7];
    let may_come = tree_masks(&mut matcher, tree, &mut masks).expect("masks");
    assert_eq!(may_come, [true, true, false, false, true, true]);
    assert_eq!(masks, [5, 6, 7, 0, 0, 7, 8]);
    // Node 3 comes after one that may not come.
    assert_eq!((matcher.accepted, matcher.depth), (5, 5));
}
