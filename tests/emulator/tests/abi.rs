//! The C ABI on a device: the emulator as CUDA's plugin, memory by functions of its own, as an
//! embedder has them, and calls with addresses in it.
#![cfg(all(emulated, not(feature = "sanitized"), not(feature = "races")))]

use backends::plugin::Plugin;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise::header::{
    self, PW_E_ALIGN, PW_E_ARGUMENT, PW_E_DEVICE, PW_E_NULL, PW_E_PLAN, PW_E_SPACE,
    PW_E_UNSUPPORTED, PW_F32, pw_embed_args, pw_embed_desc, pw_needs, pw_run, pw_status, pw_weight,
};
use pagewise_tests::device_kernels;
use pagewise_tests::harness::{
    Abi, Bytes, Case, DeviceMemory, Piece, Recorded, Refused, assert_same_bits,
};
use std::ffi::c_void;
use std::path::PathBuf;
use std::ptr::null_mut;

/// Cases of a kernel at most: others have them all.
const CASES_MAX: usize = 24;

/// A folder with the emulator as CUDA's plugin, which goes with the test.
struct Plugins {
    folder: PathBuf,
    library: libloading::Library,
}

impl Plugins {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let test = std::env::current_exe().expect("a test has a path");
        let file = folder.join("libpagewise_cuda.so");
        std::fs::copy(test.with_file_name("libemulator.so"), &file).expect("it is built");
        // SAFETY: it runs nothing when it is loaded.
        let library = unsafe { libloading::Library::new(&file) }.expect("it loads");
        Self { folder, library }
    }

    fn memory(&self) -> DeviceMemory {
        // SAFETY: these are functions of the emulator's, of these types.
        unsafe {
            DeviceMemory {
                alloc: *self.library.get(c"emulator_alloc").expect("it has the function"),
                free: *self.library.get(c"emulator_free").expect("it has the function"),
            }
        }
    }

    fn path(&self) -> &str {
        self.folder.to_str().expect("UTF-8")
    }

    fn device(&self) -> Abi {
        Abi::open("cuda:0", 0, self.path(), Some(self.memory())).expect("the emulator is there")
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Cases have the same bits through C as through the server's backend, whose answers others
/// hold to the CPU's.
fn assert_bits<C: Case>(kernel: &str, cases: &[C]) {
    let plugins = Plugins::new(&format!("pagewise-abi-{kernel}"));
    let mut abi = plugins.device();
    assert_eq!(abi.numerics(), "cuda-emulated-2");
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    for case in cases.iter().step_by(cases.len().div_ceil(CASES_MAX)) {
        let expected = case.call(&mut Recorded(&mut device)).expect("a good call runs");
        let got = case.call(&mut abi);
        let got = got.unwrap_or_else(|_| panic!("{}: {:?}", case.name(), abi.refused));
        assert_same_bits(&case.name(), &expected, &got);
    }
}

/// A kernel's cases, and as a test of its own.
macro_rules! same_bits {
    ($($kernel:ident: $held:expr;)*) => {$(
        mod $kernel {
            #[test]
            fn has_the_bits_of_the_backend_through_c() {
                let cases = pagewise_tests::cases::$kernel::cases();
                super::assert_bits(stringify!($kernel), &cases);
            }
        }
    )*};
}

device_kernels!(same_bits);

#[test]
fn what_a_device_finds_is_told_by_its_plan() {
    let plugins = Plugins::new("pagewise-abi-faults");
    let mut abi = plugins.device();
    let good = pagewise_tests::cases::attention::cases();
    let good = good.into_iter().find(|case| case.page_start.is_some()).expect("one with lists");
    type Change = fn(&mut pagewise_tests::cases::attention::AttentionCase);
    let bad: &[(&str, Change)] = &[
        // What the device alone sees, and what is refused before.
        ("page_ids", |case| case.page_ids[0] = case.params.kv.pages),
        ("kv_len", |case| case.kv_len[0] = case.params.kv_len_max + 1),
        ("kv.head_dim", |case| case.params.kv.head_dim += 1),
        ("scale", |case| case.params.scale = f32::NAN),
    ];
    for (field, change) in bad {
        let mut case = good.clone();
        change(&mut case);
        abi.refused = None;
        assert!(case.call(&mut abi).is_err(), "{field}");
        let told = abi.refused.clone().expect("an error");
        assert!(told.status < 0 && told.field == *field, "{field}: {told:?}");
        // Nothing of it stays behind.
        assert!(good.call(&mut abi).is_ok(), "{field}: {:?}", abi.refused);
    }
}

/// Embedding of four tokens of two numbers, for three rows at most.
struct Embed {
    abi: Abi,
    desc: pw_embed_desc,
    needs: pw_needs,
    table: Piece,
    tokens: Piece,
    out: Piece,
    plan: Piece,
}

const WIDTH: usize = 2;
const ROWS: usize = 3;
const TABLE: [f32; 4 * WIDTH] = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];

impl Embed {
    fn new(plugins: &Plugins) -> Self {
        let (mut abi, memory) = (plugins.device(), plugins.memory());
        let weight = pw_weight {
            outputs: 4,
            inputs: WIDTH as u32,
            dtype: PW_F32,
            scheme: 0,
            group: 0,
            scale_dtype: 0,
        };
        let desc = pw_embed_desc {
            struct_size: size_of::<pw_embed_desc>() as u32,
            rows_max: ROWS as u32,
            table_row_stride: 4 * WIDTH as i64,
            out_row_stride: 4 * WIDTH as i64,
            weight,
            packed: 0,
            out_dtype: PW_F32,
            scale: 1.0,
            reserved: 0,
        };
        let mut needs = pw_needs {
            struct_size: size_of::<pw_needs>() as u32,
            alignment: 0,
            plan_bytes: 0,
            workspace_bytes: 0,
        };
        // SAFETY: structs of their sizes.
        let asked = abi.told(|device, error| unsafe {
            header::pw_embed_query(device, &desc, &mut needs, error)
        });
        assert!(asked.is_ok(), "{:?}", abi.refused);
        let table = memory.piece(bytemuck::cast_slice(&TABLE));
        let tokens = memory.piece(bytemuck::cast_slice(&[3u32, 1, 2]));
        let out = memory.piece(bytemuck::cast_slice(&[9f32; ROWS * WIDTH]));
        let plan = memory.piece(&vec![0; needs.plan_bytes as usize]);
        let mut made = Self { abi, desc, needs, table, tokens, out, plan };
        made.plan(ROWS as u32);
        made
    }

    /// Puts a plan of so many rows where the last one was.
    fn plan(&mut self, rows: u32) {
        let mut plan = Bytes::filled(self.needs.plan_bytes as usize, 0xff);
        let (to, room) = (plan.as_mut_slice().as_mut_ptr().cast(), self.needs.plan_bytes);
        let desc = self.desc;
        // SAFETY: a struct of its size, and so much room.
        let planned = self.abi.told(|device, error| unsafe {
            header::pw_embed_plan(device, &desc, rows, to, room, error)
        });
        assert!(planned.is_ok(), "{:?}", self.abi.refused);
        self.plan.put(plan.as_slice());
    }

    fn args(&self) -> pw_embed_args {
        pw_embed_args {
            struct_size: size_of::<pw_embed_args>() as u32,
            reserved: 0,
            run: pw_run {
                plan: self.plan.at(),
                plan_bytes: self.needs.plan_bytes,
                workspace: null_mut(),
                workspace_bytes: 0,
            },
            table: self.table.at(),
            tokens: self.tokens.at().cast(),
            out: self.out.at(),
        }
    }

    fn run(&mut self, args: &pw_embed_args) -> Result<(), Refused> {
        self.run_on(args, null_mut())
    }

    fn run_on(&mut self, args: &pw_embed_args, stream: *mut c_void) -> Result<(), Refused> {
        let desc = self.desc;
        // SAFETY: structs of their sizes; where buffers are not the device's it says so.
        let ran = self.abi.told(|device, error| unsafe {
            header::pw_embed_run(device, &desc, args, stream, error)
        });
        ran.map_err(|_| self.abi.refused.take().expect("it was told why"))
    }

    fn out(&self) -> &[f32] {
        bytemuck::cast_slice(self.out.bytes())
    }
}

#[test]
fn one_call_serves_every_plan_that_is_put_there() {
    let plugins = Plugins::new("pagewise-abi-plans");
    let mut embed = Embed::new(&plugins);
    let args = embed.args();
    embed.plan(1);
    embed.run(&args).expect("a good call");
    assert_eq!(embed.out(), [3.0, 3.5, 9.0, 9.0, 9.0, 9.0]);
    embed.plan(0);
    embed.run(&args).expect("of no rows, it writes nothing");
    assert_eq!(embed.out(), [3.0, 3.5, 9.0, 9.0, 9.0, 9.0]);
    embed.plan(3);
    embed.run(&args).expect("a good call");
    assert_eq!(embed.out(), [3.0, 3.5, 1.0, 1.5, 2.0, 2.5]);
    // A token that is none stays in the plan as what is wrong, until it is made anew.
    embed.tokens.put(bytemuck::cast_slice(&[0u32, 4, 1]));
    embed.run(&args).expect("it is enqueued");
    let fault = |embed: &mut Embed| {
        let plan = embed.plan.bytes().to_vec();
        let (at, bytes) = (plan.as_ptr().cast(), plan.len() as u64);
        // SAFETY: a copy of the plan, of its length.
        let told = embed
            .abi
            .told(|device, error| unsafe { header::pw_plan_fault(device, at, bytes, error) });
        told.map_err(|_| embed.abi.refused.take().expect("it was told why"))
    };
    let told = fault(&mut embed).expect_err("token 4 of 4");
    assert_eq!((told.status, &*told.field), (PW_E_ARGUMENT as pw_status, "tokens"), "{told:?}");
    embed.tokens.put(bytemuck::cast_slice(&[0u32, 0, 0]));
    embed.out.put(bytemuck::cast_slice(&[9f32; ROWS * WIDTH]));
    embed.run(&args).expect("it is enqueued");
    assert_eq!(embed.out(), [9.0; ROWS * WIDTH], "runs with that plan write nothing");
    embed.plan(3);
    assert_eq!(fault(&mut embed), Ok(()));
    embed.run(&args).expect("a good call");
    assert_eq!(embed.out(), [0.0, 0.5, 0.0, 0.5, 0.0, 0.5]);
}

#[test]
fn a_captured_call_serves_every_plan_that_is_put_there() {
    let plugins = Plugins::new("pagewise-abi-captured");
    let mut embed = Embed::new(&plugins);
    // SAFETY: functions of the emulator's, of these types.
    let (capture, replay) = unsafe {
        (
            plugins.library.get::<extern "C" fn(u64)>(c"emulator_capture").expect("it has it"),
            plugins.library.get::<extern "C" fn() -> i64>(c"emulator_replay").expect("it has it"),
        )
    };
    let (args, stream) = (embed.args(), 640);
    capture(stream);
    embed.run_on(&args, std::ptr::without_provenance_mut(stream as usize)).expect("a good call");
    assert_eq!(embed.out(), [9.0; ROWS * WIDTH], "it is kept, and not run");
    for (rows, tokens, out) in [
        (1, [3u32, 1, 2], [3.0, 3.5, 9.0, 9.0, 9.0, 9.0]),
        (3, [0, 2, 1], [0.0, 0.5, 2.0, 2.5, 1.0, 1.5]),
        (2, [1, 1, 0], [1.0, 1.5, 1.0, 1.5, 1.0, 1.5]),
    ] {
        embed.plan(rows);
        embed.tokens.put(bytemuck::cast_slice(&tokens));
        assert!(replay() > 0, "launches were captured");
        assert_eq!(embed.out(), out, "{rows} rows");
    }
}

#[test]
fn a_run_is_enqueued_on_the_stream_that_it_names() {
    let plugins = Plugins::new("pagewise-abi-streams");
    let mut embed = Embed::new(&plugins);
    let args = embed.args();
    // SAFETY: a function of the emulator's, of this type.
    let launched = unsafe { plugins.library.get::<extern "C" fn() -> u64>(c"emulator_stream") };
    let launched = launched.expect("it has the function");
    // More than are remembered, the first of them twice, and none, which is the default one.
    for stream in (1..300usize).chain([1, 2, 0]) {
        let native = std::ptr::without_provenance_mut(64 * stream);
        embed.run_on(&args, native).expect("a good call");
        assert_eq!(launched(), if stream == 0 { 1 } else { 64 * stream as u64 });
    }
}

#[test]
fn rows_go_to_the_slots_that_the_plan_gives_them() {
    use pagewise_tests::cases::append_kv::Shape;
    let plugins = Plugins::new("pagewise-abi-slots");
    // As many slots as rows, and not one for each: the first row has none.
    let shape = Shape { rows: (3, None), ..Shape::plain(Dtype::F32, 4, 8) };
    let mut case = shape.case();
    case.slot_starts = Some(vec![0, 0, 1, 2]);
    assert_eq!((case.params.slots_max, case.params.rows_max), (3, 3));
    let cpu = case.run(Level::best(), &Inline).expect("a good call runs");
    let mut abi = plugins.device();
    let got = case.call(&mut abi).unwrap_or_else(|_| panic!("{:?}", abi.refused));
    assert_same_bits(&case.name(), &cpu, &got);
}

#[test]
fn what_can_be_told_before_is_refused_and_nothing_runs() {
    let plugins = Plugins::new("pagewise-abi-refused");
    let mut embed = Embed::new(&plugins);
    let good = embed.args();
    let mut here = Bytes::filled(512, 0);
    let host = here.as_mut_slice().as_mut_ptr().cast();
    type Wrong = fn(&mut pw_embed_args, *mut u64);
    let wrong: &[(&str, i32, Wrong)] = &[
        ("table", PW_E_UNSUPPORTED, |args, host| args.table = host.cast()),
        ("out", PW_E_UNSUPPORTED, |args, host| args.out = host.cast()),
        ("tokens", PW_E_NULL, |args, _| args.tokens = null_mut()),
        ("tokens", PW_E_ALIGN, |args, _| args.tokens = args.tokens.wrapping_byte_add(1)),
        // Three rows and not a byte less: the last begins one row later.
        ("out", PW_E_UNSUPPORTED, |args, _| args.out = args.out.wrapping_byte_add(8)),
        ("out", PW_E_ARGUMENT, |args, _| args.out = args.table.cast_mut()),
        ("plan", PW_E_SPACE, |args, _| args.run.plan_bytes -= 1),
        ("plan", PW_E_NULL, |args, _| args.run.plan = null_mut()),
        ("plan", PW_E_UNSUPPORTED, |args, host| {
            args.run.plan = host.cast();
        }),
        ("workspace", PW_E_ALIGN, |args, _| {
            args.run.workspace = args.run.plan.wrapping_byte_add(64).cast_mut();
            args.run.workspace_bytes = 64;
        }),
    ];
    for (field, status, change) in wrong {
        let mut args = good;
        change(&mut args, host);
        let told = embed.run(&args).expect_err(field);
        assert_eq!((told.status, &*told.field), (*status, *field), "{told:?}");
        assert!(told.message.len() > 10, "{told:?}");
    }
    assert_eq!(embed.out(), [9.0; ROWS * WIDTH], "nothing ran");
    embed.run(&good).expect("a good call still runs");
    drop(here);
}

#[test]
fn plans_and_scratch_are_of_one_device() {
    let plugins = Plugins::new("pagewise-abi-apart");
    let mut embed = Embed::new(&plugins);
    // Here the emulator's memory is this process's, so that the CPU could read what it must not.
    let (args, desc, mut cpu) = (embed.args(), embed.desc, Abi::cpu(1));
    // SAFETY: structs of their sizes, and buffers of a good call.
    let ran = cpu.told(|device, error| unsafe {
        header::pw_embed_run(device, &desc, &args, null_mut(), error)
    });
    assert!(ran.is_err());
    assert_eq!(cpu.refused.take().expect("it was told why").status, PW_E_PLAN as pw_status);
    embed.run(&args).expect("its own device takes it");
    let plan = embed.plan.bytes().to_vec();
    let (at, bytes) = (plan.as_ptr().cast(), plan.len() as u64);
    // SAFETY: a copy of the plan, of its length.
    let told = cpu.told(|device, error| unsafe { header::pw_plan_fault(device, at, bytes, error) });
    assert!(told.is_err());
    assert_eq!(cpu.refused.take().expect("it was told why").status, PW_E_PLAN as pw_status);
    // Scratch that is too short is told with what it takes.
    let cases = pagewise_tests::cases::sample::cases();
    let refused = cases.iter().find_map(|case| {
        let mut short = plugins.device();
        short.withheld = 1;
        case.call(&mut short).is_err().then(|| short.refused.take().expect("it was told why"))
    });
    let refused = refused.expect("sampling takes scratch");
    assert_eq!((refused.status, &*refused.field), (PW_E_SPACE as pw_status, "workspace"));
}

#[test]
fn what_opens_no_device_says_what_is_missing() {
    let plugins = Plugins::new("pagewise-abi-open");
    let refused = |name: &str, folder: &str| {
        let came = Abi::open(name, 0, folder, None).map(|_| ());
        let told = came.expect_err("there is no such device");
        assert_eq!((told.status, &*told.field), (PW_E_DEVICE as pw_status, "name"), "{told:?}");
        told.message
    };
    assert!(refused("cuda:1", plugins.path()).contains("one device, number 0"));
    assert!(refused("cuda:0", "/nowhere").contains("libpagewise_cuda"));
    assert!(refused("cuda:x", plugins.path()).contains("cuda:0"));
    assert!(refused("metal", plugins.path()).contains("the server's alone"));
    let other = PathBuf::from(plugins.path()).join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::write(other.join("libpagewise_cuda.so"), "no library").expect("a file");
    let said = refused("cuda:0", other.to_str().expect("UTF-8"));
    assert!(said.contains("does not load"), "{said}");
}
