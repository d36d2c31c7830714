// Calls GetCallerIdentity with one client until its credentials have changed twice; prints what it saw.

const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const { fromNodeProviderChain } = require("@aws-sdk/credential-providers");

async function main() {
  // A second, by default, is short on a loaded machine.
  const credentials = fromNodeProviderChain({ timeout: 20000, maxRetries: 3 });
  const client = new STSClient({ region: "eu-central-1", credentials });
  const keys = [];
  const arns = new Set();
  let calls = 0;
  const deadline = Date.now() + 120000;
  while (keys.length < 3) {
    if (Date.now() > deadline) throw new Error(`in time, only ${keys}`);
    arns.add((await client.send(new GetCallerIdentityCommand({}))).Arn);
    calls += 1;
    const key = (await client.config.credentials()).accessKeyId;
    if (!keys.includes(key)) keys.push(key);
    await new Promise((done) => setTimeout(done, 100));
  }
  console.log(JSON.stringify({ keys, arns: [...arns].sort(), calls }));
}

main();
