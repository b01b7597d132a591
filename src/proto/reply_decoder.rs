//! reply_decoder
