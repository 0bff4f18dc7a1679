//! The frames in which exec and attach travel between server and agent.
//!
//! One frame is a channel byte, a length (four bytes, big endian) and that many bytes. Channels are those of Kubernetes' `v5.channel`
//! protocol: 0 stdin, 1 stdout, 2 stderr, 3 the final Status as JSON, 4 a terminal resize `{"Width":80,"Height":24}`, 255 the half-close
//! of the channel whose number is the only payload byte. Sockets are not here: this is how bytes are written, not where they go.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest payload of one frame, in bytes. Longer output is cut into several frames, so that a reader's memory has a bound.
pub const FRAME_MAX: usize = 64 * 1024;

/// Standard input, from the client.
pub const STDIN: u8 = 0;
/// Standard output, to the client.
pub const STDOUT: u8 = 1;
/// Standard error, to the client.
pub const STDERR: u8 = 2;
/// The final `Status` object, to the client.
pub const ERROR: u8 = 3;
/// A new terminal size, from the client.
pub const RESIZE: u8 = 4;
/// The end of one direction of a channel.
pub const CLOSE: u8 = 255;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which channel the bytes belong to.
    pub channel: u8,
    /// The bytes.
    pub payload: Bytes,
}

impl Frame {
    /// Writes the frame.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(5 + self.payload.len());
        out.put_u8(self.channel);
        out.put_u32(self.payload.len() as u32);
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Takes the first whole frame off the buffer. `Ok(None)`: more bytes are needed.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameTooLong> {
        if buffer.len() < 5 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > FRAME_MAX {
            return Err(FrameTooLong(length));
        }
        if buffer.len() < 5 + length {
            return Ok(None);
        }
        let channel = buffer.get_u8();
        buffer.advance(4);
        Ok(Some(Frame { channel, payload: buffer.split_to(length).freeze() }))
    }
}

/// A frame that claims more than [`FRAME_MAX`] bytes.
#[derive(Debug, thiserror::Error)]
#[error("a frame of {0} bytes: {FRAME_MAX} at most")]
pub struct FrameTooLong(pub usize);
