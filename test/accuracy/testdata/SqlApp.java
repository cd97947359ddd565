// SPDX-License-Identifier: Apache-2.0
// A Java server that asks a database over JDBC for each request, through HikariCP. It knows nothing of tracing. GET /SHAPE/ID
// executes statements with columns that are called call_ID_N.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;
import javax.sql.DataSource;

public class SqlApp {
	static final DataSource many = open(64), few = open(8);
	static final ExecutorService jobs = Executors.newFixedThreadPool(64);

	static DataSource open(int connections) {
		HikariConfig config = new HikariConfig();
		config.setJdbcUrl("jdbc:postgresql://" + System.getenv("DATABASE") + "/postgres?sslmode=disable");
		config.setUsername("postgres");
		config.setMaximumPoolSize(connections);
		return new HikariDataSource(config);
	}

	static void call(Connection c, String id, int n) throws SQLException {
		try (PreparedStatement s = c.prepareStatement("SELECT pg_sleep(?) AS call_" + id + "_" + n)) {
			s.setDouble(1, ThreadLocalRandom.current().nextDouble() * 0.003);
			try (ResultSet rows = s.executeQuery()) {
				while (rows.next())
					;
			}
		}
	}

	static Void call(DataSource pool, String id, int n) throws SQLException {
		try (Connection c = pool.getConnection()) {
			call(c, id, n);
		}
		return null;
	}

	static void serve(HttpExchange x) throws IOException {
		String[] path = x.getRequestURI().getPath().split("/");
		String id = path[2];
		try {
			switch (path[1]) {
			case "inline":
				call(many, id, 0);
				call(many, id, 1);
				break;
			case "few":
				call(few, id, 0);
				call(few, id, 1);
				break;
			case "transaction":
				try (Connection c = many.getConnection()) {
					c.setAutoCommit(false);
					call(c, id, 0);
					call(c, id, 1);
					c.commit();
					c.setAutoCommit(true);
				}
				break;
			case "submit":
				for (int n = 0; n < 2; n++) {
					int number = n;
					jobs.submit(() -> call(many, id, number)).get();
				}
				break;
			}
		} catch (Exception e) {
			throw new RuntimeException(e);
		}
		byte[] body = "done\n".getBytes();
		x.sendResponseHeaders(200, body.length);
		x.getResponseBody().write(body);
		x.close();
	}

	public static void main(String[] args) throws Exception {
		HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 128);
		server.createContext("/", SqlApp::serve);
		server.setExecutor(Executors.newFixedThreadPool(64));
		server.start();
	}
}
