//! A request gives the same bits whatever its company, and all that an engine does to serve
//! many at once does happen.

use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use pagewise_tests::model::{Runner, thin};
use pagewise_tests::serving::{Served, greedy, settings};

#[test]
fn a_greedy_answer_is_what_the_model_finds_most_likely() {
    let prompt = thin::prompt();
    let mut served = Served::new(settings());
    let answer = served.answer(greedy(1, &prompt, 20));
    let cpu = backends::cpu::Cpu::new(Level::best(), 1);
    let pages = [0, 1, 2, 3, 4, 5, 6, 7];
    let mut runner =
        Runner::new(cpu, &thin::checkpoint(), None, &thin::capacity(Dtype::F16), &pages);
    let mut row = runner.forward(&prompt).pop().expect("a row for each token");
    for token in answer.tokens(0) {
        let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        assert_eq!(token, best as u32);
        row = runner.forward(&[token]).remove(0);
    }
    assert_eq!(answer.choices[&0].len(), 20);
    served.assert_all_pages_free();
}
