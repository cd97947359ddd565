// SPDX-License-Identifier: Apache-2.0
// PgJDBC 42.5.5

import java.io.StringReader;
import java.sql.*;
import org.postgresql.copy.CopyManager;
import org.postgresql.core.BaseConnection;

public class Main {
  public static void main(String[] args) throws Exception {
    String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/shop?sslmode=disable";
    try (Connection c = DriverManager.getConnection(url, "app", System.getenv("PGPASSWORD"))) {
      try (Statement s = c.createStatement()) {
        s.execute("CREATE TABLE j (id int PRIMARY KEY, b text)");
        s.executeQuery("SELECT 1").close();
      }
      try (PreparedStatement p = c.prepareStatement("INSERT INTO j VALUES (?, ?)")) {
        for (int i = 0; i < 8; i++) { // it is prepared with a name at the fifth
          p.setInt(1, i);
          p.setString(2, "planted-" + i);
          p.executeUpdate();
        }
        for (int i = 100; i < 500; i++) {
          p.setInt(1, i);
          p.setString(2, "planted-b" + i);
          p.addBatch();
        }
        p.executeBatch();
        p.setInt(1, 1);
        p.setString(2, "planted-dup");
        p.executeUpdate();
      } catch (SQLException e) {
        System.out.println(e.getMessage());
      }
      c.setAutoCommit(false);
      try (PreparedStatement p = c.prepareStatement("SELECT id, b FROM j WHERE id > ? ORDER BY id")) {
        p.setFetchSize(100);
        p.setInt(1, 50);
        try (ResultSet r = p.executeQuery()) {
          while (r.next()) {}
        }
      }
      try (PreparedStatement p = c.prepareStatement("SELECT * FROM nowhere WHERE a = ?")) {
        p.setInt(1, 1);
        p.executeQuery();
      } catch (SQLException e) {
        System.out.println(e.getMessage());
      }
      c.rollback();
      try (Statement s = c.createStatement()) {
        s.addBatch("INSERT INTO j VALUES (5000, 'planted-x')");
        s.addBatch("INSERT INTO j VALUES (1, 'planted-y')");
        s.addBatch("INSERT INTO j VALUES (5001, 'planted-z')");
        s.executeBatch();
      } catch (SQLException e) {
        System.out.println(e.getMessage());
      }
      c.rollback();
      c.setAutoCommit(true);
      try (Statement s = c.createStatement()) {
        s.execute("SELECT 1; SELECT 2");
      }
      try (CallableStatement s = c.prepareCall("{ ? = call upper(?) }")) {
        s.registerOutParameter(1, Types.VARCHAR);
        s.setString(2, "planted-up");
        s.execute();
      }
      new CopyManager(c.unwrap(BaseConnection.class)).copyIn("COPY j FROM STDIN", new StringReader("9000\tplanted-copy\n9001\tplanted-copy\n"));
    }
  }
}
