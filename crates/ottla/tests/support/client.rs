//! A Kafka client of one connection: it encodes with the codec crate's client side, or sends whatever
//! bytes it is given.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader, TopicName},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use socket2::{Domain, Socket, Type};

/// No answer of a healthy server takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A string as the codec crate takes it.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name as the codec crate takes it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    sent: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the node listens"))
    }

    /// Connects from an address of this machine's own: every 127.x.y.z is one.
    pub(crate) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).expect("the node listens");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, sent: 0 }
    }

    /// Sends a request and returns the answer, which must be whole and nothing but the answer.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation_id = self.send(version, request);
        self.receive::<R>(version, correlation_id)
    }

    /// Sends a request without waiting; returns its correlation id.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.sent += 1;
        let frame = frame(version, self.sent, request);
        self.send_bytes(&frame);
        self.sent
    }

    /// Takes the next answer, which must be the one to `correlation_id`.
    pub(crate) fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let mut bytes = self.receive_frame().expect("an answer");
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "answers come in order");
        let response = R::Response::decode(&mut bytes, version).expect("an answer of the asked version");
        assert!(bytes.is_empty(), "{} bytes follow the answer", bytes.len());
        response
    }

    /// The next frame without its length.
    pub(crate) fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        assert!(length < 200 << 20, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body.into())
    }

    /// The next bytes, whatever they are; `None` once the server has closed the connection.
    pub(crate) fn receive_exact(&mut self, count: usize) -> Option<Bytes> {
        let mut bytes = vec![0; count];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                let silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!silent, "the server neither sent nor closed: {error}");
                None
            }
        }
    }

    /// Whether the server has not closed the connection yet. What it has sent is skipped.
    pub(crate) fn is_open(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0; 1024]);
        self.stream.set_nonblocking(false).unwrap();
        match read {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Sends bytes as they are. A server that has already closed is no failure here.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // What matters is what can be read afterwards.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends `body` behind a length prefix of its own.
    pub(crate) fn send_frame(&mut self, body: &[u8]) {
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(body.len() as i32);
        frame.put_slice(body);
        self.send_bytes(&frame);
    }

    /// Everything until the server closes; an error where it does not.
    pub(crate) fn read_to_end(mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            // A close before everything was read arrives as a reset.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(rest),
            Err(error) => Err(error),
        }
    }

    /// Asserts that the server closes the connection without a word.
    pub(crate) fn expect_silent_close(self, what: &str) {
        match self.read_to_end() {
            Ok(rest) => assert!(
                rest.is_empty(),
                "{what}: {} bytes came before the close",
                rest.len()
            ),
            Err(error) => panic!("{what}: the server did not close the connection: {error}"),
        }
    }
}

/// A request as it goes to the wire, length included.
pub(crate) fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("test")))
        .encode(&mut bytes, R::header_version(version))
        .unwrap();
    request
        .encode(&mut bytes, version)
        .expect("the test asks only for what the version has");
    let length = bytes.len() as i32 - 4;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.freeze()
}
