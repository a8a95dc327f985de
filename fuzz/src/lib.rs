//! What each fuzz target does with its bytes, callable from plain tests.

pub mod content_coding;
pub mod framing_chunked;
pub mod http_machine;
pub mod key_slab;
pub mod multipart;
pub mod proxy_header;
pub mod request_head;
pub mod target_query;
pub mod timer_wheel;
pub mod write_queue;
pub mod ws_handshake;
pub mod ws_inflate;
pub mod ws_reader;

#[cfg(test)]
mod replay {
    /// Runs every kept input of one target.
    fn corpus(target: &str, run: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).expect("the corpus folder is there") {
            let path = entry.expect("a folder entry").path();
            println!("{}", path.display());
            run(&std::fs::read(&path).expect("a readable input"));
            inputs += 1;
        }
        assert!(inputs > 0, "no kept input for {target}");
    }

    macro_rules! replayed {
        ($($target:ident)*) => { $(#[test] fn $target() { corpus(stringify!($target), crate::$target::run) })* };
    }
    replayed!(content_coding framing_chunked http_machine key_slab multipart proxy_header request_head target_query timer_wheel write_queue ws_handshake ws_inflate ws_reader);
}
