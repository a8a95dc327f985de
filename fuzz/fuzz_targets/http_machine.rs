#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::http_machine::run(data));
