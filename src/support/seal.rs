//! Sealing of what leaves the process and must come back unread and unchanged.
