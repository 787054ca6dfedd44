// Reads {instanceUrl, accessToken, version, contacts} from argv, does one thing after the other with jsforce, and prints one
// JSON object of what it got. An exception ends it with exit code 1 and its text on stderr.
import jsforce from 'jsforce';

const { instanceUrl, accessToken, version, contacts } = JSON.parse(process.argv[2]);
const connection = new jsforce.Connection({ instanceUrl, accessToken, version });

const firstPage = await connection.query('SELECT Id, LastName, Account.Name FROM Contact ORDER BY Id');
const pages = [firstPage.records.length];
const ids = firstPage.records.map((record) => record.Id);
for (let page = firstPage; !page.done; ) {
  page = await connection.queryMore(page.nextRecordsUrl);
  pages.push(page.records.length);
  ids.push(...page.records.map((record) => record.Id));
}

const fetched = await connection
  .sobject('Contact')
  .find({ Id: { $in: contacts } }, ['Id', 'Title'])
  .sort('Id')
  .execute();

const description = await connection.sobject('Contact').describe();
const everything = await connection.describeGlobal();

const results = await connection.sobject('Contact').update(
  [
    { Id: contacts[0], Title: 'Head of Proof' },
    { Id: contacts[1], Email: 'no address' },
    { Id: contacts[2], Title: 'x'.repeat(129) },
  ],
  { allOrNone: false },
);
const retrieved = await connection.sobject('Contact').retrieve(contacts.slice(0, 2), { fields: ['Id', 'Title'] });
const single = await connection.sobject('Contact').retrieve(contacts[0]);

let refusal = null;
try {
  await connection.query('SELECT Nonsense FROM Contact');
} catch (error) {
  refusal = { name: error.name, errorCode: error.errorCode };
}

const bulk = await connection.bulk2.loadAndWaitForResults({
  object: 'Contact',
  operation: 'update',
  pollInterval: 50,
  pollTimeout: 20000,
  input: [
    { Id: contacts[0], Title: 'Chief of \u00c4u\u00dferes, "quoted"' },
    { Id: contacts[1], Title: 'x'.repeat(129) },
  ],
});

const limits = await connection.limits();

console.log(
  JSON.stringify({
    totalSize: firstPage.totalSize,
    pages,
    distinctIds: new Set(ids).size,
    fetched: fetched.map((record) => record.Id),
    titleLength: description.fields.find((field) => field.name === 'Title').length,
    objects: everything.sobjects.map((sobject) => sobject.name),
    results,
    retrieved: retrieved.map((record) => record.Title),
    single: { Title: single.Title, type: single.attributes.type },
    refusal,
    bulk,
    limits: limits.DailyApiRequests,
    usage: connection.limitInfo.apiUsage,
  }),
);
