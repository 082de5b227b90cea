//! `cargo bench -p pagewise-benches`: see the library.

fn main() {
    let mut bench = pagewise_benches::Bench::from_args();
    pagewise_benches::kernels::all(&mut bench);
}
