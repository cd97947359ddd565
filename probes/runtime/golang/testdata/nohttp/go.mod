module example.com/nohttp

go 1.19
