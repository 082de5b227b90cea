//! How much memory keys and values get: a share of what the weights and the work of a step
//! leave.

use super::sized;

/// Of what is left, in hundredths, what keys and values get if nothing is said: requests
/// and the system have the rest.
const KV_HUNDREDTHS: u64 = 80;
/// Taken for available where the system does not tell.
const UNKNOWN: u64 = 4 << 30;

/// Memory that a model takes.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Of its weights, packed.
    pub weights: u64,
    /// Of a step's rows.
    pub workspace: u64,
    /// Of slots for adapters.
    pub adapters: u64,
    /// Of a page of keys and values in all layers.
    pub page: u64,
    /// Pages that all answers at their longest can hold: more are never used.
    pub pages_useful: u64,
}

impl Needs {
    /// What is left of the memory for keys and values.
    pub fn beside(&self, available: u64) -> u64 {
        let taken = self.weights.saturating_add(self.workspace).saturating_add(self.adapters);
        available.saturating_sub(taken)
    }

    /// Pages of keys and values, for memory that was asked for or a share of what is left;
    /// or, in words, why there can be none.
    pub fn pages(&self, available: Option<u64>, asked: Option<u64>) -> Result<u32, String> {
        let left = self.beside(available.unwrap_or(UNKNOWN));
        let memory = asked.unwrap_or(left / 100 * KV_HUNDREDTHS);
        let pages = (memory / self.page.max(1)).min(self.pages_useful).min(u32::MAX.into());
        let beside = || {
            let (weights, workspace) = (sized(self.weights), sized(self.workspace));
            let available = sized(available.unwrap_or(UNKNOWN));
            format!(
                "of {available} available memory the weights take {weights}, the work of a step \
                 {workspace}, slots for adapters {}",
                sized(self.adapters)
            )
        };
        let known = available.is_some() || asked.is_none();
        match (asked, pages) {
            (Some(asked), 0) => Err(format!(
                "--kv-cache-memory: a page takes {}, more than {}",
                sized(self.page),
                sized(asked)
            )),
            (Some(_), pages) if known && pages * self.page > left => Err(format!(
                "--kv-cache-memory: {} are needed, {} are left: {}",
                sized(pages * self.page),
                sized(left),
                beside()
            )),
            (None, 0) => Err(format!(
                "a page of keys and values takes {}, which is not left: {}",
                sized(self.page),
                beside()
            )),
            (_, pages) => Ok(pages as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KV_HUNDREDTHS, Needs, UNKNOWN};

    const NEEDS: Needs =
        Needs { weights: 600, workspace: 150, adapters: 50, page: 10, pages_useful: 50 };

    #[test]
    fn keys_and_values_get_a_share_of_what_weights_and_workspace_leave() {
        assert_eq!(NEEDS.beside(1000), 200);
        assert_eq!(NEEDS.pages(Some(1000), None), Ok((200 * KV_HUNDREDTHS / 100 / 10) as u32));
        let lighter = Needs { weights: 300, ..NEEDS };
        assert_eq!(lighter.pages(Some(1000), None), Ok(40));
    }

    #[test]
    fn no_more_pages_are_made_than_answers_can_fill() {
        assert_eq!(NEEDS.pages(Some(1 << 40), None), Ok(50));
        assert_eq!(NEEDS.pages(Some(1 << 40), Some(1 << 39)), Ok(50));
        // What would not be used need not be there.
        assert_eq!(NEEDS.pages(Some(1300), Some(1 << 39)), Ok(50));
    }

    #[test]
    fn what_is_asked_for_is_given_where_it_is_there() {
        assert_eq!(NEEDS.pages(Some(1000), Some(199)), Ok(19));
        let refused = NEEDS.pages(Some(1000), Some(210)).expect_err("it is not there");
        assert!(refused.starts_with("--kv-cache-memory: 210 B are needed, 200 B are left"));
        assert!(refused.contains("weights take 600 B"), "{refused}");
        let small = NEEDS.pages(Some(1000), Some(9)).expect_err("less than a page");
        assert!(small.contains("a page takes 10 B"), "{small}");
        // Nobody knows what is there: then whoever asks does.
        let huge = Needs { pages_useful: u64::MAX, ..NEEDS };
        assert!(huge.pages(None, Some(2 * UNKNOWN)).is_ok());
    }

    #[test]
    fn weights_that_leave_nothing_are_told() {
        let refused = NEEDS.pages(Some(700), None).expect_err("they do not fit");
        assert!(refused.contains("of 700 B available memory the weights take 600 B"), "{refused}");
    }
}
