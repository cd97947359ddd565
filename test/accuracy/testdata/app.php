<?php
// SPDX-License-Identifier: Apache-2.0
// A PHP page that makes calls for each request. It knows nothing of tracing.
[, , $id] = explode('/', $_SERVER['REQUEST_URI']);
foreach ([0, 1] as $n) {
	usleep(random_int(0, 3000));
	file_get_contents(getenv('BACKEND') . "/call/$id/$n");
}
echo "done\n";
