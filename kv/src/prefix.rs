//! Which prefixes of tokens have their keys and values in pages already.
//!
//! A radix tree whose every edge is one full page of tokens, below a root for each
//! [`Scope`]. A page joins when whoever computes it says so ([`Prefixes::publish`]);
//! until then its place may be claimed, so that others with the same prefix wait for it
//! and do not compute it again. The index is one holder of each page it has; a page that
//! nobody else holds can be evicted, the longest unused first, leaves before what they
//! stand on.

use super::pages::{NotHeld, Page, Pages};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Evicted places that are remembered, to tell why a prefix was missed.
const GHOSTS: usize = 1 << 16;

/// What keys and values depend on besides tokens: those of one scope are never found
/// under another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The version of the weights.
    pub weights: u64,
    /// The adapter, 0 for none.
    pub adapter: u64,
    /// The version of the adapter.
    pub adapter_version: u64,
    /// What a client sets to share with nobody else.
    pub salt: Arc<[u8]>,
}

/// The start of a sequence whose pages are there.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Full pages, in order, each held once more: for the caller.
    pub pages: Vec<Page>,
    /// Why there are no more.
    pub miss: Miss,
}

/// What [`Prefixes::find`] would give, without its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Full pages that are there.
    pub pages: u32,
    /// Of these, the ones that nobody but the index holds.
    pub idle: u32,
    /// What comes after them.
    pub next: Next,
}

/// What comes after the pages of a prefix that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No full page.
    Nothing,
    /// A page that nobody has claimed. Equal numbers are, all but surely, one place.
    Unclaimed(u64),
    /// A page that another sequence is computing.
    Awaited(Awaited),
}

/// A place that was claimed when it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    node: usize,
    serial: u64,
}

/// Why a prefix ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// What is left fills no page.
    PartialPage,
    /// Another sequence is computing the next page.
    Awaited,
    /// The next page was here, and had to go.
    Evicted,
    /// It is here under another salt.
    Salt,
    /// It is here under another version of the weights or of the adapter, or another
    /// adapter.
    Version,
    /// It was never here, as far as is remembered.
    Cold,
}

/// The right, and the duty, to publish or abandon the page of a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    node: usize,
    serial: u64,
}

/// The index.
#[derive(Debug)]
pub struct Prefixes {
    page_len: usize,
    roots: HashMap<Arc<Scope>, HashMap<Arc<[u32]>, usize>>,
    nodes: Vec<Option<Node>>,
    unused: Vec<usize>,
    /// Published nodes without children, the longest unused first.
    leaves: BTreeSet<(u64, usize)>,
    /// Published nodes by the tokens down to them, whatever their scope.
    alike: HashMap<u64, Vec<usize>>,
    clock: u64,
    /// Of the last claim.
    serial: u64,
    ghosts: Ghosts,
}

#[derive(Debug)]
struct Node {
    /// Of the claim that made it.
    serial: u64,
    scope: Arc<Scope>,
    /// None below a root.
    above: Option<usize>,
    tokens: Arc<[u32]>,
    children: HashMap<Arc<[u32]>, usize>,
    /// None until it is published.
    page: Option<Page>,
    /// Never before what stands on it.
    last_used: u64,
    /// A hash of all tokens down to here.
    path: u64,
}

/// Where a walk along some tokens ended.
struct Walk {
    /// The published nodes it came through.
    nodes: Vec<usize>,
    /// The next one, if it is claimed and not published yet.
    claimed: Option<usize>,
}

/// The places evicted last, as hashes: now and then one that was not.
#[derive(Debug, Default)]
struct Ghosts {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Ghosts {
    fn remember(&mut self, place: u64) {
        if self.known.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > GHOSTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Prefixes {
    /// None yet. Pages hold `page_len` tokens, at least one.
    pub fn new(page_len: u32) -> Self {
        Self {
            page_len: page_len.max(1) as usize,
            roots: HashMap::new(),
            nodes: Vec::new(),
            unused: Vec::new(),
            leaves: BTreeSet::new(),
            alike: HashMap::new(),
            clock: 0,
            serial: 0,
            ghosts: Ghosts::default(),
        }
    }

    /// Pages that the index holds.
    pub fn held(&self) -> usize {
        self.nodes.iter().flatten().filter(|node| node.page.is_some()).count()
    }

    /// The longest start of `tokens` whose pages are there. They count as used now.
    pub fn find(&mut self, pages: &mut Pages, scope: &Scope, tokens: &[u32]) -> Found {
        let walk = self.walk(scope, tokens);
        self.clock += 1;
        let mut found = Vec::with_capacity(walk.nodes.len());
        for &id in &walk.nodes {
            self.touch(id);
            let page = self.node(id).page.expect("a walk goes through published nodes");
            pages.hold(page).expect("the index holds it");
            found.push(page);
        }
        Found { pages: found, miss: self.miss(scope, tokens, &walk) }
    }

    /// What [`find`](Self::find) would give: nothing is held, and nothing counts as used.
    pub fn probe(&self, pages: &Pages, scope: &Scope, tokens: &[u32]) -> Probe {
        let walk = self.walk(scope, tokens);
        let found = walk.nodes.iter().filter_map(|&id| self.node(id).page);
        let idle = found.filter(|&page| pages.holders(page) == 1).count() as u32;
        let after = tokens.chunks_exact(self.page_len).nth(walk.nodes.len());
        let next = match (walk.claimed, after) {
            (Some(node), _) => Next::Awaited(Awaited { node, serial: self.node(node).serial }),
            (None, Some(tokens)) => {
                let above = walk.nodes.last().map(|&id| self.node(id).path);
                Next::Unclaimed(place(scope, path(above, tokens)))
            }
            (None, None) => Next::Nothing,
        };
        Probe { pages: walk.nodes.len() as u32, idle, next }
    }

    /// Whether somebody is still computing the page of that place.
    pub fn is_awaited(&self, place: Awaited) -> bool {
        let node = self.nodes[place.node].as_ref();
        node.is_some_and(|node| node.serial == place.serial && node.page.is_none())
    }

    /// The page with the last tokens of `tokens`, whole pages, if it is there. Nobody
    /// holds it the more for it.
    pub fn page_of(&self, scope: &Scope, tokens: &[u32]) -> Option<Page> {
        let walk = self.walk(scope, tokens);
        let whole = walk.nodes.len() * self.page_len == tokens.len();
        walk.nodes.last().filter(|_| whole).and_then(|&id| self.node(id).page)
    }

    /// The places of the full pages of `tokens` that are neither there nor claimed, for
    /// a sequence that will compute them; they are to be published in order. Nothing
    /// below a place that somebody else has claimed.
    pub fn claim(&mut self, scope: &Scope, tokens: &[u32]) -> Vec<Claim> {
        let walk = self.walk(scope, tokens);
        if walk.claimed.is_some() {
            return Vec::new();
        }
        let (mut above, mut claims) = (walk.nodes.last().copied(), Vec::new());
        for tokens in tokens.chunks_exact(self.page_len).skip(walk.nodes.len()) {
            let node = self.grow(scope, above, tokens);
            claims.push(Claim { node, serial: self.serial });
            above = Some(node);
        }
        claims
    }

    /// The page of a claimed place is computed: others find it from now on, and the
    /// index is one more holder. Says whether it joined: a place that was forgotten
    /// meanwhile is no more.
    pub fn publish(
        &mut self,
        pages: &mut Pages,
        claim: Claim,
        page: Page,
    ) -> Result<bool, NotHeld> {
        if !self.is_open(&claim) {
            return Ok(false);
        }
        if let Err(error) = pages.hold_indexed(page) {
            self.abandon(pages, claim);
            return Err(error);
        }
        self.clock += 1;
        let node = self.node_mut(claim.node);
        node.page = Some(page);
        let path = node.path;
        self.alike.entry(path).or_default().push(claim.node);
        let mut next = Some(claim.node);
        while let Some(id) = next {
            self.touch(id);
            next = self.node(id).above;
        }
        Ok(true)
    }

    /// The page of a claimed place will not come. What was claimed below it goes too,
    /// for it was claimed by the same sequence.
    pub fn abandon(&mut self, pages: &mut Pages, claim: Claim) {
        if self.is_open(&claim) {
            self.remove(claim.node, pages);
        }
    }

    /// Lets go of pages that nobody else holds until `wanted` more are free or none is
    /// left; says how many were.
    pub fn evict(&mut self, pages: &mut Pages, wanted: u32) -> u32 {
        let (mut freed, mut from) = (0, (0, 0));
        while freed < wanted {
            let Some(&(used, id)) = self.leaves.range(from..).next() else { break };
            let page = self.node(id).page.expect("a leaf is published");
            if pages.holders(page) > 1 {
                from = (used, id + 1);
                continue;
            }
            let place = self.node(id).place();
            self.ghosts.remember(place);
            self.remove(id, pages);
            freed += 1;
            // What it stood on may be a leaf now, as long unused.
            from = (used, 0);
        }
        freed
    }

    /// Lets go of everything in scopes that `stale` picks, such as those of old weights.
    pub fn forget(&mut self, pages: &mut Pages, stale: impl Fn(&Scope) -> bool) {
        let scopes: Vec<_> = self.roots.keys().filter(|scope| stale(scope)).cloned().collect();
        for scope in scopes {
            let children: Vec<usize> = self.roots[&scope].values().copied().collect();
            for id in children {
                self.remove(id, pages);
            }
        }
    }

    fn is_open(&self, claim: &Claim) -> bool {
        self.is_awaited(Awaited { node: claim.node, serial: claim.serial })
    }

    fn node(&self, id: usize) -> &Node {
        self.nodes[id].as_ref().expect("a node that is linked is there")
    }

    fn node_mut(&mut self, id: usize) -> &mut Node {
        self.nodes[id].as_mut().expect("a node that is linked is there")
    }

    fn walk(&self, scope: &Scope, tokens: &[u32]) -> Walk {
        let mut walk = Walk { nodes: Vec::new(), claimed: None };
        let mut children = self.roots.get(scope);
        for tokens in tokens.chunks_exact(self.page_len) {
            let Some(&id) = children.and_then(|children| children.get(tokens)) else { break };
            let node = self.node(id);
            if node.page.is_none() {
                walk.claimed = Some(id);
                break;
            }
            walk.nodes.push(id);
            children = Some(&node.children);
        }
        walk
    }

    fn miss(&self, scope: &Scope, tokens: &[u32], walk: &Walk) -> Miss {
        if walk.claimed.is_some() {
            return Miss::Awaited;
        }
        let Some(next) = tokens.chunks_exact(self.page_len).nth(walk.nodes.len()) else {
            return Miss::PartialPage;
        };
        let path = path(walk.nodes.last().map(|&id| self.node(id).path), next);
        if self.ghosts.known.contains(&place(scope, path)) {
            return Miss::Evicted;
        }
        let elsewhere = self.alike.get(&path).into_iter().flatten();
        let mut why = Miss::Cold;
        for &id in elsewhere {
            let other = &self.node(id).scope;
            let same = |scope: &Scope| (scope.weights, scope.adapter, scope.adapter_version);
            if same(other) == same(scope) {
                return Miss::Salt;
            }
            why = Miss::Version;
        }
        why
    }

    /// A claimed node for one more page.
    fn grow(&mut self, scope: &Scope, above: Option<usize>, tokens: &[u32]) -> usize {
        let scope = match above {
            Some(above) => Arc::clone(&self.node(above).scope),
            None => match self.roots.get_key_value(scope) {
                Some((scope, _)) => Arc::clone(scope),
                None => Arc::new(scope.clone()),
            },
        };
        self.serial += 1;
        let node = Node {
            serial: self.serial,
            scope: Arc::clone(&scope),
            above,
            tokens: tokens.into(),
            children: HashMap::new(),
            page: None,
            last_used: 0,
            path: path(above.map(|above| self.node(above).path), tokens),
        };
        let key = Arc::clone(&node.tokens);
        let id = self.unused.pop().unwrap_or(self.nodes.len());
        match self.nodes.get_mut(id) {
            Some(free) => *free = Some(node),
            None => self.nodes.push(Some(node)),
        }
        match above {
            Some(above) => {
                let node = self.node_mut(above);
                node.children.insert(key, id);
                let leaf = (node.last_used, above);
                self.leaves.remove(&leaf);
            }
            None => {
                self.roots.entry(scope).or_default().insert(key, id);
            }
        }
        id
    }

    /// The node counts as used now.
    fn touch(&mut self, id: usize) {
        let now = self.clock;
        let node = self.node_mut(id);
        let before = std::mem::replace(&mut node.last_used, now);
        let leaf = node.children.is_empty();
        self.leaves.remove(&(before, id));
        if leaf {
            self.leaves.insert((now, id));
        }
    }

    /// Takes a node out with all that stands on it, and lets go of their pages.
    fn remove(&mut self, id: usize, pages: &mut Pages) {
        let (scope, above) = (Arc::clone(&self.node(id).scope), self.node(id).above);
        let tokens = Arc::clone(&self.node(id).tokens);
        if let Some(above) = above {
            let node = self.node_mut(above);
            node.children.remove(&tokens);
            if node.children.is_empty() && node.page.is_some() {
                let leaf = (node.last_used, above);
                self.leaves.insert(leaf);
            }
        } else if let Some(children) = self.roots.get_mut(&scope) {
            children.remove(&tokens);
            if children.is_empty() {
                self.roots.remove(&scope);
            }
        }
        let mut below = vec![id];
        while let Some(id) = below.pop() {
            let node = self.nodes[id].take().expect("a node that is linked is there");
            self.unused.push(id);
            self.leaves.remove(&(node.last_used, id));
            below.extend(node.children.values());
            let Some(page) = node.page else { continue };
            pages.release_indexed(page).expect("the index held it");
            if let Some(alike) = self.alike.get_mut(&node.path) {
                alike.retain(|&other| other != id);
                if alike.is_empty() {
                    self.alike.remove(&node.path);
                }
            }
        }
    }
}

impl Node {
    fn place(&self) -> u64 {
        place(&self.scope, self.path)
    }
}

/// A hash of the tokens down to a page.
fn path(above: Option<u64>, tokens: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (above, tokens).hash(&mut hasher);
    hasher.finish()
}

/// A hash of the tokens down to a page, and their scope.
fn place(scope: &Scope, path: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (scope, path).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{Miss, Next, Prefixes, Scope};
    use crate::pages::{Page, Pages};

    fn scope(weights: u64, salt: &[u8]) -> Scope {
        Scope { weights, adapter: 0, adapter_version: 0, salt: salt.into() }
    }

    /// Takes and publishes a page for each full page of the tokens; the index alone
    /// holds them afterwards.
    fn fill(index: &mut Prefixes, pages: &mut Pages, scope: &Scope, tokens: &[u32]) -> Vec<Page> {
        let claims = index.claim(scope, tokens);
        let made = claims.into_iter().map(|claim| {
            let page = pages.take().expect("enough pages");
            assert_eq!(index.publish(pages, claim, page), Ok(true));
            pages.release(page).expect("it was taken");
            page
        });
        made.collect()
    }

    #[test]
    fn a_prefix_is_found_by_full_pages_in_its_own_scope_alone() {
        let (mut index, mut pages) = (Prefixes::new(2), Pages::new(8));
        let (mine, salted, later) = (scope(1, b""), scope(1, b"x"), scope(2, b""));
        let made = fill(&mut index, &mut pages, &mine, &[1, 2, 3, 4, 5]);
        assert_eq!(made, [Page(0), Page(1)]);
        let found = index.find(&mut pages, &mine, &[1, 2, 3, 4, 5]);
        assert_eq!((&found.pages[..], found.miss), (&made[..], Miss::PartialPage));
        assert_eq!(pages.holders(made[0]), 2);
        let found = index.find(&mut pages, &mine, &[1, 2, 9, 9]);
        assert_eq!((found.pages.len(), found.miss), (1, Miss::Cold));
        assert_eq!(index.find(&mut pages, &salted, &[1, 2]).miss, Miss::Salt);
        assert_eq!(index.find(&mut pages, &later, &[1, 2]).miss, Miss::Version);
    }

    #[test]
    fn a_claimed_place_is_awaited_and_an_abandoned_one_is_free_again() {
        let (mut index, mut pages) = (Prefixes::new(2), Pages::new(8));
        let mine = scope(1, b"");
        let mut claims = index.claim(&mine, &[1, 2, 3, 4]);
        assert_eq!(claims.len(), 2);
        assert!(index.claim(&mine, &[1, 2, 7, 8]).is_empty(), "it waits for the first");
        assert_eq!(index.find(&mut pages, &mine, &[1, 2]).miss, Miss::Awaited);
        index.abandon(&mut pages, claims.remove(0));
        // The second place went with the first.
        let page = pages.take().expect("a page");
        assert_eq!(index.publish(&mut pages, claims.remove(0), page), Ok(false));
        assert_eq!(index.claim(&mine, &[1, 2]).len(), 1);
    }

    #[test]
    fn a_probe_tells_what_would_be_found_and_whether_it_is_still_awaited() {
        let (mut index, mut pages) = (Prefixes::new(2), Pages::new(8));
        let mine = scope(1, b"");
        let mut claims = index.claim(&mine, &[1, 2, 3, 4]);
        let page = pages.take().expect("a page");
        assert_eq!(index.publish(&mut pages, claims.remove(0), page), Ok(true));
        let probe = index.probe(&pages, &mine, &[1, 2, 3, 4, 5]);
        let Next::Awaited(place) = probe.next else { panic!("the second page is claimed") };
        assert_eq!((probe.pages, probe.idle, pages.idle()), (1, 0, 0));
        assert!(index.is_awaited(place));
        index.abandon(&mut pages, claims.remove(0));
        assert!(!index.is_awaited(place));
        pages.release(page).expect("it was taken");
        let probe = index.probe(&pages, &mine, &[1, 2, 3, 4]);
        assert!(matches!(probe, super::Probe { pages: 1, idle: 1, next: Next::Unclaimed(_) }));
        assert_eq!(index.probe(&pages, &mine, &[1, 2, 3]).next, Next::Nothing);
        assert_eq!(index.page_of(&mine, &[1, 2]), Some(page));
        assert_eq!((index.page_of(&mine, &[1, 2, 3, 4]), pages.idle()), (None, 1));
    }

    #[test]
    fn eviction_takes_the_longest_unused_leaf_that_nobody_holds() {
        let (mut index, mut pages) = (Prefixes::new(1), Pages::new(3));
        let mine = scope(1, b"");
        fill(&mut index, &mut pages, &mine, &[1, 2]);
        fill(&mut index, &mut pages, &mine, &[3]);
        let held = index.find(&mut pages, &mine, &[1]);
        // [1, 2] is the longest unused; [1] is held; [3] is left.
        assert_eq!(index.evict(&mut pages, 1), 1);
        assert_eq!(index.find(&mut pages, &mine, &[1, 2]).miss, Miss::Evicted);
        pages.release(Page(0)).expect("found twice");
        assert_eq!(index.evict(&mut pages, 9), 1, "only [3], for [1] is held");
        pages.release(held.pages[0]).expect("it was found");
        assert_eq!(index.evict(&mut pages, 9), 1);
        assert_eq!((pages.free(), index.held()), (3, 0));
    }

    #[test]
    fn what_is_forgotten_is_not_found_and_its_claims_come_to_nothing() {
        let (mut index, mut pages) = (Prefixes::new(1), Pages::new(4));
        let (old, new) = (scope(1, b""), scope(2, b""));
        fill(&mut index, &mut pages, &old, &[1, 2]);
        fill(&mut index, &mut pages, &new, &[1]);
        let claim = index.claim(&old, &[1, 2, 3]).remove(0);
        index.forget(&mut pages, |scope| scope.weights < 2);
        assert_eq!((pages.free(), index.held()), (3, 1));
        let page = pages.take().expect("a page");
        assert_eq!(index.publish(&mut pages, claim, page), Ok(false));
        assert_eq!(index.find(&mut pages, &old, &[1]).miss, Miss::Version);
    }
}
