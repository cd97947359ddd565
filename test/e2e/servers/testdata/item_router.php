<?php
// SPDX-License-Identifier: Apache-2.0

// An ordinary script for PHP's built-in server. It knows nothing of tracing.
[, $kind, $first] = explode('/', parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) + ['', '', ''];
switch ($kind) {
    case 'item':
        echo "item $first\n";
        break;
    case 'upload':
        echo strlen(file_get_contents('php://input')), "\n";
        break;
    case 'status':
        http_response_code((int) $first);
        break;
    case 'sleep':
        usleep((int) $first * 1000);
        echo "slept\n";
        break;
    case 'chunked':
        for ($i = 0; $i < (int) $first; $i++) {
            echo "chunk $i\n";
            flush();
        }
        break;
    default:
        http_response_code(404);
        echo "not found\n";
}
