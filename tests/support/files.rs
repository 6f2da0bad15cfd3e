//! Temporary files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use scaikey_auth::Secret;

/// A file in its own temporary folder. Both are deleted on drop.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let file = Self::reserve(name);
        file.write(text);
        file
    }

    /// Creates the folder for a file that does not exist yet.
    pub(crate) fn reserve(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = format!("scaikey-auth-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir(&folder).unwrap();
        Self(folder.join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path_text(&self) -> String {
        self.0.display().to_string()
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn remove(&self) {
        fs::remove_file(&self.0).unwrap();
    }

    /// Returns the URL of an SQLite database in this file, which the first connection creates.
    pub(crate) fn sqlite_url(&self) -> Secret {
        format!("sqlite://{}?mode=rwc", self.path_text()).into()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.with_file_name(""));
    }
}
