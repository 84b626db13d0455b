// The API of a shop, its workers and a nightly report.
const base = { cwd: "./server", kill_timeout: 10000, max_memory_restart: "512M" };

module.exports = {
  apps: [
    {
      ...base,
      name: "api",
      script: "dist/server.js",
      instances: 4,
      exec_mode: "cluster",
      node_args: "--max-old-space-size=400",
      wait_ready: true,
      env: { NODE_ENV: "production", PORT: 3000, REDIS_URL: "redis://127.0.0.1:6379" },
      env_staging: { NODE_ENV: "staging" },
      out_file: "./logs/api.out.log",
      error_file: "./logs/api.err.log",
    },
    {
      ...base,
      name: "admin",
      script: "npm",
      args: "run start:admin",
      env: { PORT: 3100 },
      min_uptime: "20s",
      max_restarts: 5,
      exp_backoff_restart_delay: 200,
    },
    {
      name: "Report Builder",
      script: "report/build.py",
      args: ["--since", "yesterday"],
      autorestart: false,
      cron_restart: "0 3 * * *",
    },
    { name: "assets", script: "npm run watch:assets", watch: ["src"] },
  ],
  deploy: { production: { host: "shop.example", repo: "git@example:shop.git" } },
};
