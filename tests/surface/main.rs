//! What is written down for users, held against the code: the command table and its page, the
//! configuration.

mod command_table;
mod commands_page;
mod config;
