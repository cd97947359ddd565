<?php
// SPDX-License-Identifier: Apache-2.0
// A PHP page that asks PostgreSQL with PDO, over a connection that it keeps. It knows nothing of tracing. GET /SHAPE/ID executes
// statements with columns that are called call_ID_N.
[, , $id] = explode('/', $_SERVER['REQUEST_URI']);
[$host, $port] = explode(':', getenv('DATABASE'));
$db = new PDO("pgsql:host=$host;port=$port;dbname=postgres", 'postgres', '', [PDO::ATTR_PERSISTENT => true]);
$statement = $db->prepare("SELECT pg_sleep(?) AS call_{$id}_0");
$statement->execute([random_int(0, 30) / 10000]);
$statement->fetchAll();
$db->query('SELECT pg_sleep(' . random_int(0, 30) / 10000 . ") AS call_{$id}_1")->fetchAll();
echo "done\n";
