#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::content_coding::run(data));
