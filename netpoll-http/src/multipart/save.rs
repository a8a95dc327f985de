//! A file that is written while its part arrives, by jobs of the pool that blocks.
//!
//! Invariant: the worker makes no call that may wait for a disk. Whoever gives up leaves no half of a file: the jobs share what there is of it,
//! behind a lock that one of them holds while it works, and the last one removes it, whichever had begun by then.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use netpoll_core::blocking::spawn_blocking;

use crate::message::{Error, guarded};

/// A file on its way.
pub(super) struct Saving {
    shared: Arc<Mutex<Shared>>,
    is_whole: bool,
}

struct Shared {
    path: PathBuf,
    file: Option<File>,
    /// Nobody wants it any more.
    is_given_up: bool,
}

impl Saving {
    /// Makes a file that is not there yet.
    pub(super) async fn begin(path: PathBuf) -> Result<Self, Error> {
        let shared = Shared { path, file: None, is_given_up: false };
        let saving = Self { shared: Arc::new(Mutex::new(shared)), is_whole: false };
        saving
            .work(|shared| {
                shared.file = Some(File::options().write(true).create_new(true).open(&shared.path)?);
                Ok(())
            })
            .await?;
        Ok(saving)
    }

    /// Writes these pieces.
    pub(super) async fn write(&self, chunks: Vec<Bytes>) -> Result<(), Error> {
        self.work(move |shared| match &mut shared.file {
            Some(file) => write_all(file, &chunks),
            None => Ok(()),
        })
        .await
    }

    /// It is whole, and stays.
    pub(super) fn finish(mut self) {
        self.is_whole = true;
    }

    async fn work(
        &self,
        work: impl FnOnce(&mut Shared) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let job = move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.is_given_up { Ok(()) } else { work(&mut shared) }
        };
        Ok(spawn_blocking(job).await??)
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let remove = Remove(shared);
        // Whoever is refused, or is no worker any more, does it here.
        guarded(move || spawn_blocking(move || drop(remove)));
    }
}

/// Removes what there is of a file when it is dropped: by a job, or with the job.
struct Remove(Arc<Mutex<Shared>>);

impl Drop for Remove {
    fn drop(&mut self) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.is_given_up = true;
        if shared.file.take().is_some() {
            // One that somebody has moved or removed is not ours any more, and nobody waits for an answer.
            let _gone = fs::remove_file(&shared.path);
        }
    }
}

/// Writes these pieces to somebody's file.
pub(super) async fn write(file: File, chunks: Vec<Bytes>) -> Result<File, Error> {
    let job = move || {
        let mut file = file;
        write_all(&mut file, &chunks).map(|()| file)
    };
    Ok(spawn_blocking(job).await??)
}

fn write_all(file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
    chunks.iter().try_for_each(|chunk| file.write_all(chunk))
}
