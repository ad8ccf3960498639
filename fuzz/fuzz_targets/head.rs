#![no_main]

use faas_fuzz::head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| head::check(bytes));
