#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::write_queue::run(data));
