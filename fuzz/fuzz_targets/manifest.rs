#![no_main]

use faas_fuzz::manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| manifest::check(bytes));
