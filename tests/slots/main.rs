//! What is certain in whatever order threads come: of the table, of known tokens, of their grounds.

mod grounds;
mod known;
mod table;
