//! What `rope` promises, over its cases; and the numbers of its tables.

use backends::cpu::Threads;
use kernels_core::rope::Pairing;
use kernels_core::rope::table::{Scaling, Table, Yarn, yarn_attention};
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::rope::{Shape, TABLE_LEN, cases, strategy};
use pagewise_tests::harness::{
    Case, Noise, assert_refused_or_answered, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..12,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        position in prop_oneof![0u32..TABLE_LEN + 2, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        let out = case.out.as_slice();
        case.out = pagewise_tests::harness::Bytes::of(&out[..out.len().saturating_sub(cut)]);
        case.positions[0] = position;
        assert_refused_or_answered(&case);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let threads = Threads::new(3);
    for pairing in [Pairing::Neox, Pairing::Interleaved] {
        let shape = Shape { gap: 2, pairing, ..Shape::plain(40, 11, 80, 72) };
        let whole = shape.case();
        let together = whole.run(Level::best(), &threads).expect("a good call runs");
        let inline = whole.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits("three threads", &inline, &together);
        let stride = whole.params.out_row_stride as usize * 4;
        let mut noise = Noise::new(7);
        for _ in 0..8 {
            let row = noise.below(40) as usize;
            let range = row * stride..(row + 1) * stride;
            let mut alone = Shape { rows: (1, None), ..shape }.case();
            alone.positions = vec![whole.positions[row]];
            let x = whole.x.as_ref().expect("not in place").as_slice();
            let own = alone.x.as_mut().expect("not in place");
            own.as_mut_slice().copy_from_slice(&x[range.clone()]);
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            drop(normal);
            let _normal = environment::Normal::enter();
            assert_eq!(outputs[0].bytes.as_slice(), &together[0].bytes.as_slice()[range]);
        }
    }
}

#[test]
fn in_place_has_the_bits_of_an_output() {
    let shape = Shape::plain(3, 2, 80, 64);
    let apart = shape.case();
    let mut here = Shape { in_place: true, ..shape }.case();
    here.positions.clone_from(&apart.positions);
    let apart = apart.run(Level::best(), &Inline).expect("a good call runs");
    let here = here.run(Level::best(), &Inline).expect("a good call runs");
    assert_same_bits("in place", &apart, &here);
}

#[test]
fn a_position_past_the_table_is_refused_before_any_row() {
    let mut case = Shape::plain(3, 1, 16, 16).case();
    case.positions[2] = TABLE_LEN;
    let error = case.run(Level::best(), &Inline).expect_err("a position past the table");
    assert_eq!((error.kernel, error.field), ("rope", "positions"));
    // A row that is not in use may hold anything.
    case.rows = Some(2);
    case.run(Level::best(), &Inline).expect("two good rows");
}

fn turns(base: f64, rotary_dims: u32, scaling: Scaling) -> Vec<f64> {
    let table = Table { base, rotary_dims, scaling };
    table.check().expect("the numbers are good");
    let mut turns = vec![0.0; rotary_dims as usize / 2];
    table.turns(&mut turns);
    turns
}

/// Worked from the published formulas by another program, in f64.
/// A line of the golden: a kind, its numbers, the attention factor, the turns.
fn golden(line: &str) -> (Table, f64, Vec<f64>) {
    let parts: Vec<&str> = line.split(" | ").collect();
    let [given, attention, turns] = parts[..] else { panic!("not a golden line: {line}") };
    let (kind, given) = given.split_once(' ').expect("a kind and its numbers");
    let number = |name: &str| {
        let mut pairs = given.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, x)| x.parse::<f64>().expect("a number"))
    };
    let must = |name: &str| number(name).unwrap_or_else(|| panic!("{line}: no {name}"));
    let original = || must("original_max_position_embeddings") as u32;
    let factor = must("factor");
    let scaling = match kind {
        "linear" => Scaling::Linear { factor },
        "dynamic" => Scaling::Dynamic {
            factor,
            original_positions: must("positions") as u32,
            positions: must("length") as u32,
        },
        "llama3" => Scaling::Llama3 {
            factor,
            low_factor: must("low_freq_factor"),
            high_factor: must("high_freq_factor"),
            original_positions: original(),
        },
        "yarn" => Scaling::Yarn(Yarn {
            factor,
            original_positions: original(),
            beta_fast: number("beta_fast").unwrap_or(32.0),
            beta_slow: number("beta_slow").unwrap_or(1.0),
            attention_factor: yarn_attention(
                factor,
                number("mscale").zip(number("mscale_all_dim")),
            ),
            truncate: number("truncate").is_none_or(|truncate| truncate != 0.0),
        }),
        kind => panic!("no scaling is called {kind}"),
    };
    let table = Table { base: must("base"), rotary_dims: must("dims") as u32, scaling };
    let turns = turns.split(' ').map(|turn| turn.parse().expect("a number")).collect();
    (table, attention.parse().expect("a number"), turns)
}

#[test]
fn tables_are_those_of_transformers() {
    let lines = include_str!("../golden/rope/golden.txt").lines();
    let mut kinds = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (table, attention, expected) = golden(line);
        table.check().expect("a good table");
        let mut turns = vec![0.0; expected.len()];
        table.turns(&mut turns);
        assert!((table.attention_factor() - attention).abs() < 1e-12, "{table:?}");
        for (pair, (turn, expected)) in turns.iter().zip(&expected).enumerate() {
            // Theirs are powers, products and ramps in f32.
            let error = (turn / expected - 1.0).abs();
            assert!(error < 2e-6, "{table:?}: pair {pair} turns {turn}, expected {expected}");
        }
        kinds += 1;
    }
    assert_eq!(kinds, 10, "every line of the golden");
}

fn assert_turns(turns: &[f64], expected: &[(usize, f64)]) {
    for &(pair, expected) in expected {
        let error = (turns[pair] / expected - 1.0).abs();
        assert!(error < 1e-13, "pair {pair} turns {}, expected {expected}", turns[pair]);
    }
}

#[test]
fn plain_and_linear_tables_turn_by_powers_of_the_base() {
    let plain = turns(10_000.0, 8, Scaling::None);
    assert_turns(&plain, &[(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.001)]);
    let linear = turns(10_000.0, 8, Scaling::Linear { factor: 4.0 });
    assert_turns(&linear, &[(0, 0.25), (1, 0.025), (3, 0.000_25)]);
}

#[test]
fn dynamic_tables_have_the_larger_base() {
    let scaling = Scaling::Dynamic { factor: 2.0, original_positions: 2048, positions: 4096 };
    let expected = [
        (0, 1.0),
        (1, 0.850_994_291_341_216_2),
        (32, 0.005_723_381_508_381_237),
        (63, 3.849_273_282_298_194e-5),
    ];
    assert_turns(&turns(10_000.0, 128, scaling), &expected);
    let scaling = Scaling::Dynamic { factor: 2.0, original_positions: 2048, positions: 2048 };
    assert_eq!(turns(10_000.0, 128, scaling), turns(10_000.0, 128, Scaling::None));
}

#[test]
fn yarn_tables_ramp_between_whole_pairs_or_not() {
    let mut yarn = Yarn {
        factor: 4.0,
        original_positions: 4096,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: yarn_attention(4.0, None),
        truncate: true,
    };
    // The ramp goes from pair 20 to pair 46.
    let expected = [
        (0, 1.0),
        (20, 0.056_234_132_519_034_905),
        (21, 0.047_292_038_501_684_786),
        (30, 0.009_488_517_882_700_576),
        (45, 0.000_429_402_588_997_358_2),
        (46, 0.000_333_380_358_040_831),
        (63, 2.886_954_961_723_645_5e-5),
    ];
    assert_turns(&turns(10_000.0, 128, Scaling::Yarn(yarn)), &expected);
    (yarn.factor, yarn.truncate) = (32.0, false);
    let expected = [
        (8, 0.050_813_274_815_461_475),
        (9, 0.031_705_696_184_663_77),
        (12, 0.006_794_959_489_732_219),
        (17, 0.000_129_318_701_245_063_17),
        (18, 3.830_881_237_375_338_4e-5),
        (31, 3.023_511_428_119_214_4e-7),
    ];
    assert_turns(&turns(150_000.0, 64, Scaling::Yarn(yarn)), &expected);
}

#[test]
fn llama3_tables_ramp_over_wavelengths() {
    let scaling = Scaling::Llama3 {
        factor: 8.0,
        low_factor: 1.0,
        high_factor: 4.0,
        original_positions: 8192,
    };
    let expected = [
        (0, 1.0),
        (28, 0.003_211_445_994_752_591_3),
        (29, 0.002_166_570_763_503_359),
        (32, 0.000_524_846_160_992_954_7),
        (35, 9.556_212_353_964_683e-5),
        (36, 7.784_655_273_932_45e-5),
        (63, 3.068_925_988_914_511e-7),
    ];
    assert_turns(&turns(500_000.0, 128, scaling), &expected);
}

#[test]
fn yarn_scales_cosines_and_sines_by_its_attention_factor() {
    assert!((yarn_attention(4.0, None) - 1.138_629_436_111_989).abs() < 1e-15);
    assert!((yarn_attention(40.0, Some((0.707, 1.0))) - 0.921_042_355_316_339_9).abs() < 1e-15);
    assert_eq!(yarn_attention(0.5, None), 1.0);
    let yarn = Yarn {
        factor: 2.0,
        original_positions: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.5,
        truncate: true,
    };
    let table = Table { base: 100.0, rotary_dims: 4, scaling: Scaling::Yarn(yarn) };
    let mut row = [0f32; 8];
    table.fill(0, &mut row).expect("the numbers are good");
    assert_eq!(row[..4], [1.5, 1.5, 0.0, 0.0]);
}

#[test]
fn a_table_far_out_has_the_cosines_of_exact_angles() {
    let table = Table { base: 10_000.0, rotary_dims: 8, scaling: Scaling::None };
    let mut row = [0f32; 8];
    table.fill(1_000_000, &mut row).expect("the numbers are good");
    // f32 angles would be off by hundredths here.
    for (pair, turn) in [1.0, 0.1, 0.01, 0.001].into_iter().enumerate() {
        let angle: f64 = 1e6 * turn;
        assert!((f64::from(row[pair]) - angle.cos()).abs() < 1e-7);
        assert!((f64::from(row[4 + pair]) - angle.sin()).abs() < 1e-7);
    }
}

#[test]
fn bad_tables_are_refused_by_field() {
    let refused = |table: Table| table.check().expect_err("a bad table").field;
    let good = Table { base: 10_000.0, rotary_dims: 64, scaling: Scaling::None };
    assert_eq!(refused(Table { base: f64::NAN, ..good }), "base");
    assert_eq!(refused(Table { base: 1.0, ..good }), "base");
    assert_eq!(refused(Table { rotary_dims: 7, ..good }), "rotary_dims");
    assert_eq!(refused(Table { rotary_dims: 258, ..good }), "rotary_dims");
    let linear = Scaling::Linear { factor: 0.5 };
    assert_eq!(refused(Table { scaling: linear, ..good }), "factor");
    let llama = Scaling::Llama3 {
        factor: 8.0,
        low_factor: 4.0,
        high_factor: 4.0,
        original_positions: 8192,
    };
    assert_eq!(refused(Table { scaling: llama, ..good }), "high_factor");
}
