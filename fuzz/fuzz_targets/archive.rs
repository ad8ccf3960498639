#![no_main]

use faas_fuzz::archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| archive::check(bytes));
