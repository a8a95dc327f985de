//! A connection to each store, of one worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::bridge::SendWrapper;
use netpoll_core::net::Stream;
use netpoll_core::task::spawn_daemon;
use netpoll_core::time::timeout;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long an answer may take, a connection included.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Postgres {
    config: Config,
    client: RefCell<Option<Rc<Client>>>,
}

impl Postgres {
    pub fn config(url: &str) -> Result<Config, Failure> {
        Ok(url.parse()?)
    }

    pub fn new(config: Config) -> Self {
        Self { config, client: RefCell::default() }
    }

    pub async fn add(&self, a: i64, b: i64) -> Result<i64, Failure> {
        let answer = async {
            let row = self.client().await?.query_one("SELECT $1::int8 + $2::int8", &[&a, &b]).await?;
            Ok(row.try_get(0)?)
        };
        timeout(PATIENCE, answer).await?
    }

    async fn client(&self) -> Result<Rc<Client>, Failure> {
        let known = self.client.borrow().clone();
        if let Some(client) = known.filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let stream = match self.config.get_hosts() {
            [Host::Tcp(name), ..] => Stream::connect(format!("{name}:{port}")).await?,
            [Host::Unix(directory), ..] => {
                Stream::connect(format!("unix:{}/.s.PGSQL.{port}", directory.display())).await?
            }
            [] => return Err("the URL names no host".into()),
        };
        let (client, connection) = self.config.connect_raw(stream, NoTls).await?;
        // Requests that wait hear of its end; a drain does not wait for it.
        let _goes_on = spawn_daemon(connection);
        let client = Rc::new(client);
        *self.client.borrow_mut() = Some(Rc::clone(&client));
        Ok(client)
    }
}

pub struct Redis {
    config: ConnectionInfo,
    client: RefCell<Option<MultiplexedConnection>>,
}

impl Redis {
    pub fn config(url: &str) -> Result<ConnectionInfo, Failure> {
        Ok(url.into_connection_info()?)
    }

    pub fn new(config: ConnectionInfo) -> Self {
        Self { config, client: RefCell::default() }
    }

    pub async fn count(&self, key: &str) -> Result<u64, Failure> {
        let answer = async {
            let mut client = self.client().await?;
            let counted = redis::cmd("INCR").arg(key).query_async::<u64>(&mut client).await;
            if counted.as_ref().is_err_and(redis::RedisError::is_io_error) {
                // The next request makes another.
                self.client.take();
            }
            Ok(counted?)
        };
        timeout(PATIENCE, answer).await?
    }

    async fn client(&self) -> Result<MultiplexedConnection, Failure> {
        let known = self.client.borrow().clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let stream = match self.config.addr() {
            ConnectionAddr::Tcp(name, port) => Stream::connect(format!("{name}:{port}")).await?,
            ConnectionAddr::Unix(path) => Stream::connect(format!("unix:{}", path.display())).await?,
            _ => return Err("only redis:// and redis+unix://".into()),
        };
        // It looks for a runtime to bound its answers: they are bounded here.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        // The stream has to be `Send`, and stays in the task that drives it.
        let stream = SendWrapper::new(stream);
        let (client, driver) =
            MultiplexedConnection::new_with_config(self.config.redis_settings(), stream, config).await?;
        let _goes_on = spawn_daemon(driver);
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }
}
